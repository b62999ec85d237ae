"""The `iot` command: finds the command, and turns known errors into one readable line and an exit code."""

import sys
from typing import Annotated

import typer

from ingest_daemon.errors import SettingsError
from ingest_daemon.leaving import leave
from iot_platform.cli import terminal
from iot_platform.cli.commands import LazyGroup
from iot_platform.cli.errors import CliError

app = typer.Typer(
    name="iot",
    cls=LazyGroup,
    help="Run, feed and question the IoT platform: MQTT → Kafka → Dagster → TimescaleDB.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    rich_markup_mode="rich",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        terminal.echo(f"iot {version('iot-platform')}")
        raise typer.Exit


@app.callback()
def _root(
    _version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")] = False,
) -> None:
    """Run, feed and question the IoT platform."""


def main() -> None:
    """Entry point of the `iot` script."""
    try:
        _run()
    except SystemExit as ended:
        if not isinstance(ended.code, int):  # None, or a text that the interpreter prints
            raise
        leave(ended.code)


def _run() -> None:
    try:
        app()
    except (CliError, SettingsError) as error:
        _say(str(error))
        sys.exit(error.exit_code if isinstance(error, CliError) else 2)
    except Exception as error:
        psycopg2 = sys.modules.get("psycopg2")  # importing it would take longer than most of --help
        if psycopg2 is None or not isinstance(error, psycopg2.Error):
            raise
        _say(f"the database refused: {' '.join(str(error).split())}; `iot doctor` says what is wrong with it")
        sys.exit(2)


def _say(text: str) -> None:
    terminal.console(stderr=True).print(f"[red]error:[/red] {terminal.escape(text)}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
