"""The list of `iot`'s commands says what the commands say of themselves, and is all that `iot --help` needs."""

import importlib
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from iot_platform.cli.commands import COMMANDS, LazyGroup

MODULES = sorted({module for module, _ in COMMANDS.values()})
HEAVY = ("confluent_kafka", "dagster", "numpy", "paho", "polars", "psycopg2", "pydantic_settings", "sqlalchemy", "structlog")


@pytest.mark.parametrize("name", COMMANDS)
def test_help_begins_as_the_list_says(name: str) -> None:
    command = LazyGroup(name="iot").load(name)
    first = " ".join(inspect.cleandoc(command.help).split("\n\n", maxsplit=1)[0].split())
    assert first.startswith(COMMANDS[name][1])


@pytest.mark.parametrize("module", MODULES)
def test_every_command_of_a_module_is_listed(module: str) -> None:
    app = typer.Typer()
    app.callback()(lambda: None)
    importlib.import_module(f"iot_platform.cli.{module}").register(app)
    group: Any = typer.main.get_command(app)
    assert list(group.commands) == [name for name, (where, _) in COMMANDS.items() if where == module]


def test_every_module_with_commands_is_listed() -> None:
    folder = Path(importlib.import_module("iot_platform.cli").__file__ or "").parent
    assert [path.stem for path in sorted(folder.glob("*.py")) if "def register(app: " in path.read_text("utf-8")] == MODULES


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["status", "--help"], ["tenant", "export", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    """Asked of sys.modules, because a clock on a busy machine proves nothing."""
    code = (
        "import sys; from iot_platform.cli.main import app\n"
        "try: app()\n"
        f"finally: print(*sorted({{name.partition('.')[0] for name in sys.modules}} & set({HEAVY})), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout
    assert done.stderr.split() == []


def test_the_list_itself_imports_no_command() -> None:
    code = "import sys; from iot_platform.cli import main; print(*(name for name in sys.modules if name.startswith('iot_platform.cli.')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert set(done.stdout.split()) == {f"iot_platform.cli.{name}" for name in ("main", "commands", "terminal", "errors")}
