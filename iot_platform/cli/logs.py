"""`iot logs`: the programs' logs, followed and filtered, whatever form each of them writes."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from iot_platform.cli import terminal
from iot_platform.cli.errors import CliError
from iot_platform.visible import visible

if TYPE_CHECKING:
    from rich.console import Console

    from iot_platform.diagnostics.log_lines import Record

STYLES = {"debug": "dim", "info": "", "warning": "yellow", "error": "red", "critical": "bold red"}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(logs)


def logs(  # noqa: PLR0917  the command's options
    programs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PROGRAM]...", help="mosquitto, kafka, ingest, dagster-code …; all unless given. -: standard input."),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as lines arrive, until Ctrl-C.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="Records of each log to begin with.")] = 20,
    level: Annotated[str, typer.Option(help="Least severe: debug, info, warning, error or critical.")] = "debug",
    run: Annotated[str, typer.Option(help="Of this Dagster run; its first characters are enough.")] = "",
    batch: Annotated[int | None, typer.Option(help="Of this batch (ledger.batch_id).")] = None,
    partition: Annotated[int | None, typer.Option(help="Of this Kafka partition.")] = None,
    offset: Annotated[int | None, typer.Option(help="Of this Kafka offset; with --partition.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a record.")] = False,
) -> None:
    """Show the programs' logs in order of time.

    Elsewhere than in the local stack: [b]journalctl -o cat -u 'iot-*' | iot logs - --level warning[/b], [b]kubectl logs … | iot logs -[/b].
    """
    from iot_platform.diagnostics import log_files
    from iot_platform.diagnostics.log_lines import LEVELS, Wanted
    from iot_platform.settings import user_settings

    if level not in LEVELS:
        raise CliError(f"--level must be one of {', '.join(LEVELS)}", 2)
    wanted = Wanted(level, run, batch, partition, offset)
    show = _Screen(as_json=as_json, several=len(programs or ()) != 1)
    try:
        if programs == ["-"]:
            for record in log_files.records("", sys.stdin):
                if wanted.takes(record):
                    show(record)
            return
        folder = user_settings().local_dir / "logs"
        for record in log_files.last_records(_files(folder, programs), lines, wanted.takes):
            show(record)
        if follow:
            for record in log_files.follow(lambda: _files(folder, programs)):
                if wanted.takes(record):
                    show(record)
    except KeyboardInterrupt:
        return


def _files(folder: Path, programs: list[str] | None) -> list[Path]:
    """Raises CliError."""
    files = sorted(folder.glob("*.log"))
    if not files:
        raise CliError(f"no logs in {folder} yet: run `iot up`; of other installations: journalctl -o cat -u 'iot-*' | iot logs -")
    names = [path.stem for path in files]
    if unknown := [name for name in programs or () if name not in names]:
        raise CliError(f"no log of {unknown[0]} in {folder}; there are: {', '.join(names)}")
    return [path for path in files if not programs or path.stem in programs]


class _Screen:
    def __init__(self, *, as_json: bool, several: bool) -> None:
        self._as_json, self._several = as_json, several
        self._console: Console | None = None

    def __call__(self, record: "Record") -> None:
        if self._as_json:
            document: dict[str, Any] = {"program": record.program, "timestamp": record.at, "level": record.level, "event": record.text}
            terminal.echo_json({**record.fields, **document})
            return
        from rich.text import Text

        if self._console is None:
            self._console = terminal.console(highlight=False, soft_wrap=True)
        line = Text()
        if record.at is not None:
            line.append(f"{record.at:%Y-%m-%d %H:%M:%S}.{record.at.microsecond // 1000:03} ", "dim")
        if self._several and record.program:
            line.append(f"{record.program} ", "cyan")
        line.append(f"{record.level} ", STYLES[record.level])
        line.append(visible(record.text))
        line.append("".join(f" {name}={value}" for name, value in _shown(record.fields.items())), "dim")
        self._console.print(line)


def _shown(fields: Iterable[tuple[str, Any]]) -> Iterable[tuple[str, str]]:
    """The exception last, on lines of its own."""
    found = [(name, visible(str(value))) for name, value in fields if name != "exception"]
    return found + [(f"\n{name}", visible(str(value))) for name, value in fields if name == "exception"]
