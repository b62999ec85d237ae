"""The `iot` command: registers every subcommand, and turns known errors into one readable line and an exit code."""

import sys
from importlib.metadata import version
from typing import Annotated

import typer

from ingest_daemon.leaving import leave
from iot_platform.cli import (
    acceptance,
    alert_bridge,
    audit,
    backup,
    compression,
    console,
    decode,
    drill,
    environment,
    imports,
    influx,
    local_stack,
    logs,
    metrics,
    migrate,
    offsets,
    project,
    quality,
    replay,
    retention,
    rollup,
    series,
    simulate,
    sql,
    status,
    support_bundle,
    tenant,
    terminal,
    topics,
    trace,
)
from iot_platform.cli.errors import CliError
from iot_platform.settings import SettingsError

app = typer.Typer(
    name="iot",
    help="Run, feed and question the IoT platform: MQTT → Kafka → Dagster → TimescaleDB.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    rich_markup_mode="rich",
)


# Each command module has register(app); heavy imports happen inside the commands so that --help stays fast.
acceptance.register(app)
alert_bridge.register(app)
audit.register(app)
backup.register(app)
compression.register(app)
console.register(app)
decode.register(app)
drill.register(app)
environment.register(app)
imports.register(app)
influx.register(app)
metrics.register(app)
migrate.register(app)
offsets.register(app)
project.register(app)
quality.register(app)
replay.register(app)
retention.register(app)
rollup.register(app)
series.register(app)
simulate.register(app)
sql.register(app)
status.register(app)
support_bundle.register(app)
tenant.register(app)
topics.register(app)
trace.register(app)
local_stack.register(app)
logs.register(app)


def _show_version(wanted: bool) -> None:
    if wanted:
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
