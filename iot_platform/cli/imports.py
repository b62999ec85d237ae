"""`iot import`: history from InfluxDB exports, CSV and Parquet."""

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer import BadParameter

from iot_platform.cli import terminal
from iot_platform.signals import stop_on_signals

if TYPE_CHECKING:
    from rich.console import Console

    from iot_platform.imports.run import Progress as Reached
    from iot_platform.imports.run import Summary

STOPPED = 130
UNREACHABLE = 2
FORMATS = ("line_protocol", "csv", "parquet")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("import")(import_file)


def import_file(
    *,
    file: Annotated[Path, typer.Argument(help="Line protocol, CSV or Parquet; the first two may be gzip.")],
    mapping: Annotated[Path, typer.Option("--mapping", "-m", help="TOML: what is tenant, project, device, metric and time.")],
    file_format: Annotated[
        str | None, typer.Option("--format", help="line_protocol, csv or parquet, if mapping and name do not tell.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what would happen, and change nothing.")] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Import content that is in already: after its tenant was deleted, or by another mapping.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of text.")] = False,
) -> None:
    """Import history, by the contract of live messages: each row becomes a message with measurements, or is in quarantine with the reason.

    Rows and the place in the file are committed together: killed, it goes on where it was; a file that is in is recognised by its content,
    and nothing happens. What retention would not keep is refused. The ledger has the import as a partition of its own, so `iot audit`,
    `iot trace --partition P --offset N` and `iot replay --quarantined` know it.

    [b]iot import export.lp.gz --mapping mapping.toml --dry-run[/b]
    [b]iot import export.lp.gz --mapping mapping.toml[/b]

    Exit code 0: all is in, some of it perhaps in quarantine. 1: the file, its mapping or the database refuses. 2: wrong usage, or the
    database does not answer. 130: stopped by Ctrl-C after the batch at work; repeat it.
    """
    if file_format is not None and file_format not in FORMATS:
        raise BadParameter(f"must be one of {', '.join(FORMATS)}", param_hint="--format")
    summary = _run(file, mapping, {"form": file_format, "again": again, "dry_run": dry_run})
    if as_json:
        terminal.echo_json(
            {
                "run_id": summary.run_id,
                "dry_run": dry_run,
                "ended": summary.ended,
                "partition": summary.partition,
                "records": summary.records,
                "seconds": round(summary.seconds, 3),
                **summary.books.counts,
                "reasons": dict(summary.books.reasons),
            }
        )
    else:
        _show(summary, dry_run, terminal.console(highlight=False, soft_wrap=True))
    if summary.ended == "stopped":
        raise typer.Exit(STOPPED)


def _run(file: Path, mapping: Path, options: dict[str, Any]) -> "Summary":
    """Import with a progress bar on standard error."""
    import psycopg2
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    from iot_platform.database.errors import DatabaseError
    from iot_platform.imports.errors import ImportRefusedError
    from iot_platform.imports.run import Import
    from iot_platform.settings import get_settings
    from iot_platform.telemetry.errors import DrainError

    console = terminal.console(stderr=True, highlight=False)
    stop, begun = threading.Event(), time.monotonic()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[count]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("looking", total=1.0, count="")

        def show(progress: "Reached") -> None:
            rate = progress.records / max(time.monotonic() - begun, 0.001)
            what = "reading" if progress.looking else "looking" if options["dry_run"] else "importing"
            count = "" if progress.looking else f"{progress.records:,} records, {rate:,.0f}/s"
            bar.update(task, completed=progress.part, description=what, count=count)

        def warn(text: str) -> None:
            console.print(f"trying again: {text}", markup=False)

        try:
            with stop_on_signals(stop, then=lambda: console.print("stopping after this batch …")):
                return Import(get_settings(), file, mapping, **options, on_progress=show, on_retry=warn, stop=stop).run()
        except ImportRefusedError as error:
            _fail(console, str(error), 1)
        except (DatabaseError, DrainError) as error:
            _fail(console, str(error), UNREACHABLE)
        except OSError as error:
            _fail(console, f"{file} cannot be read: {error}", 1)
        except psycopg2.Error as error:
            _fail(console, f"the database refuses: {' '.join(str(error).split())}", 1)


def _fail(console: "Console", text: str, code: int) -> NoReturn:
    console.print(f"[red]error:[/red] {terminal.escape(text)}", soft_wrap=True)
    raise typer.Exit(code)


def _show(summary: "Summary", dry_run: bool, console: "Console") -> None:
    from rich.text import Text

    counts = summary.books.counts
    would = "would be " if dry_run and summary.ended != "already" else ""
    title = {
        "already": f"partition {summary.partition}: this content is in already, nothing was done",
        "stopped": f"{summary.run_id}: stopped early, repeat the command to go on",
        "done": f"{summary.run_id}, dry run: nothing was changed" if dry_run else f"{summary.run_id}: partition {summary.partition}",
    }[summary.ended]
    console.print(Text(f"{title} ({summary.seconds:.1f} s)", "bold"))
    lines = (
        (
            summary.records,
            f"records{' looked at' if would else ' of the file are in'}"
            + (f", {summary.was_in:,} of them before" if summary.was_in else ""),
        ),
        (counts["messages"], f"{would}stored as messages"),
        (counts["quarantined"], f"{would}quarantined"),
        (counts["measurements"], f"measurements {would}added"),
        (counts["measurement_duplicates"], "measurements were there already"),
        (counts["measurement_conflicts"], "measurements differ from a value that is there (see iot project options: conflicts)"),
    )
    for count, text in lines:
        if count or text.startswith("records"):
            console.print(f"{count:>12,}  {text}")
    for reason, count in summary.books.reasons.most_common():
        console.print(f"{count:>12,}  {would}quarantined: {reason}")
