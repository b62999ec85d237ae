"""`iot project`: options by project, tenant and for everybody; the most specific one counts."""

import json
from contextlib import closing
from typing import Any

import psycopg2
import pytest
from typer.testing import CliRunner

from iot_platform.cli.main import app
from iot_platform.database import connect
from iot_platform.settings import Settings, exports
from iot_platform.telemetry.project_options import OPTIONS, ProjectOptions
from iot_platform_tests.support.feeds.drain import query

pytestmark = pytest.mark.both_editions
CONSTRAINT = "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'project_option_value_check'"


@pytest.fixture
def run(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The command line on the test's database."""
    import iot_platform.settings as module

    for name, value in exports(settings).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(module, "get_settings", lambda: settings)
    return lambda *arguments: CliRunner().invoke(app, ["project", *arguments])


def loaded(settings: Settings) -> ProjectOptions:
    with closing(connect(settings, "writer", "test")) as connection:
        return ProjectOptions.load(connection)


def test_the_most_specific_choice_counts(settings: Settings, run: Any) -> None:
    assert loaded(settings).value("conflicts", "acme", "north") == "first"
    for arguments in (
        ("conflicts", "last"),
        ("conflicts", "keep", "--tenant", "acme"),
        ("conflicts", "first", "--tenant", "acme", "--project", "north"),
    ):
        first = run("set", *arguments)
        assert (first.exit_code, "take it with their next shift" in first.stdout) == (0, True)
        again = run("set", *arguments)
        assert (again.exit_code, "already" in again.stdout) == (0, True)
    options = loaded(settings)
    asked = [("acme", "north"), ("acme", "south"), ("other", "north")]
    assert [options.value("conflicts", *whose) for whose in asked] == ["first", "keep", "last"]
    assert options == loaded(settings)
    shown = json.loads(run("options", "--tenant", "acme", "--json").stdout)
    assert shown["in_force"] == {"conflicts": "keep", "retained": "changes", "numbers_in_strings": "off"}
    assert [(item["tenant"], item["project"], item["value"]) for item in shown["chosen"]] == [
        ("", "", "last"),
        ("acme", "", "keep"),
        ("acme", "north", "first"),
    ]
    table = run("options").stdout
    assert "acme/north" in table
    assert "numbers_in_strings" in table
    assert "is keep again" in run("reset", "conflicts", "--tenant", "acme", "--project", "north").stdout
    assert "no such choice" in run("reset", "conflicts", "--tenant", "acme", "--project", "north").stdout
    assert loaded(settings).value("conflicts", "acme", "north") == "keep"
    assert run("reset", "conflicts").exit_code == run("reset", "conflicts", "--tenant", "acme").exit_code == 0
    assert loaded(settings) == ProjectOptions()


def test_what_means_nothing_is_refused_by_name(settings: Settings, run: Any) -> None:
    for arguments, text in (
        (("set", "conflict", "last"), "there are: conflicts, retained, numbers_in_strings"),
        (("set", "conflicts", "newest"), "there are: first, last, keep"),
        (("set", "retained", "changes", "--project", "north"), "needs its tenant"),
        (("set", "retained", "changes", "--tenant", ""), "need a name"),
        (("reset", "conflict"), "there are: conflicts, retained, numbers_in_strings"),
    ):
        refused = run(*arguments)
        assert refused.exit_code != 0
        assert text in str(refused.exception) + refused.output
    assert "nothing was drained yet of project acme/north" in run("set", "retained", "all", "--tenant", "acme", "--project", "north").stdout
    with pytest.raises(psycopg2.errors.CheckViolation):
        query(settings, "INSERT INTO project_option (name, value) VALUES ('conflicts', 'newest')")


def test_the_table_takes_what_the_code_knows(settings: Settings) -> None:
    definition = query(settings, CONSTRAINT)[0][0]
    for option in OPTIONS.values():
        for value in option.values:
            assert f"'{value}'" in definition
            query(settings, "INSERT INTO project_option (name, value, tenant_id) VALUES (%s, %s, %s)", option.name, value, value)
