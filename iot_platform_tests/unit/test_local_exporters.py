"""The local stack's exporters show what was chosen and nothing else, whatever collectors a release of theirs has."""

from pathlib import Path

import pytest

from iot_platform.local import exporters, jmx_exporter
from iot_platform.local.errors import LocalStackError
from iot_platform.local.monitoring import local

EARLY = """
      --collector.database       Enable the database collector (default:
      --collector.bgwriter       Enable the bgwriter collector (default:
      --disable-default-metrics  Do not include default metrics.
"""
LATER = """
      --[no-]collector.database  Enable the database collector (default: enabled).
      --[no-]collector.stat_database
                                 Enable the stat_database collector
      --[no-]collector.stat_user_tables
                                 Enable the stat_user_tables collector (default:
      --collector.stat_statements.limit=100
"""


def program(folder: Path, name: str, shown: str) -> None:
    """One that says this of itself, on standard error as kingpin does."""
    (folder / name).write_text(f"#!/bin/sh\ncat >&2 <<'HELP'\n{shown}HELP\n", "utf-8")
    (folder / name).chmod(0o755)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(exporters, "which", lambda name: str(tmp_path / name) if (tmp_path / name).exists() else None)
    return tmp_path


@pytest.mark.parametrize(
    ("shown", "chosen"),
    [
        (EARLY, ("--collector.database", "--no-collector.bgwriter")),
        (LATER, ("--disable-default-metrics", "--collector.database", "--collector.stat_database", "--no-collector.stat_user_tables")),
    ],
    ids=["early", "later"],
)
def test_what_grows_is_switched_off(folder: Path, shown: str, chosen: tuple[str, ...]) -> None:
    program(folder, exporters.POSTGRES, shown)
    made = exporters.postgres_exporter(folder, 9187, "postgresql://iot_monitor:secret@127.0.0.1:5432/postgres")
    assert made.command[3:] == ("--disable-settings-metrics", *chosen)
    assert "secret" not in " ".join(made.command)
    assert made.environment["DATA_SOURCE_NAME"].startswith("postgresql://iot_monitor:secret@127.0.0.1:5432/postgres?sslmode=disable")


def test_of_the_host_only_what_was_chosen(folder: Path) -> None:
    program(folder, exporters.NODE, "      --collector.cpu            Enable\n      --collector.wifi           Enable\n")
    made = exporters.node_exporter(folder, 9100)
    assert made.command[1:] == (
        "--web.listen-address=127.0.0.1:9100",
        "--log.level=warn",
        "--collector.disable-defaults",
        "--collector.cpu",
    )


def test_what_is_not_installed_is_named_as_its_package(folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"^prometheus-node-exporter$"):
        exporters.node_exporter(folder, 9100)


def test_prometheus_scrapes_each_as_a_job(tmp_path: Path) -> None:
    made = local(tmp_path, (9090, 9095), 9108, 9109, {"kafka": "127.0.0.1:9404"})._prometheus()
    jobs = {job["job_name"]: job["static_configs"][0]["targets"] for job in made["scrape_configs"]}
    assert jobs["kafka"] == ["127.0.0.1:9404"]
    assert set(jobs) == {"prometheus", "alertmanager", "kafka", "iot"}


def test_a_jar_that_is_not_the_one_of_the_list_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "jmx-exporter-1.0.1"
    folder.mkdir()
    (folder / "jmx_prometheus_javaagent-1.0.1.jar").write_bytes(b"another")
    with pytest.raises(LocalStackError, match=f"wanted is .*: remove {folder} and repeat"):
        jmx_exporter.fetch(tmp_path, tmp_path, lambda _: None)
