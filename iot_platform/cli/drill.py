"""`iot drill`: failure drills on servers of their own, with a verdict and a report."""

import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from iot_platform.cli import terminal
from iot_platform.cli.errors import CliError

if TYPE_CHECKING:
    from rich.console import Console

    from iot_platform.drills.rig.registry import Drill
    from iot_platform.drills.rig.report import Outcome, Report
    from iot_platform.drills.rig.runner import Show

LOG_EVERY_SECONDS = 20.0

drills = typer.Typer(
    name="drill",
    help="Failure drills: break the platform on purpose, on servers of its own, and prove that no message was lost or doubled.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(drills)


@drills.command("list")
def list_drills() -> None:
    """Every drill: its name, its group and what it proves; ● marks those that `make test` runs too."""
    from iot_platform.drills.catalog import all_drills

    table = Table("drill", "group", "", "proves", box=None, pad_edge=False, header_style="bold")
    for item in all_drills():
        table.add_row(
            item.name, item.group, "●" if item.fast else "", f"[b]{terminal.escape(item.title)}.[/b] {terminal.escape(item.proves)}"
        )
    terminal.console().print(table)


@drills.command("run")
def run(  # noqa: PLR0917 - every parameter is an option
    names: Annotated[list[str], typer.Argument(help="Drills or groups of `iot drill list`, or [b]all[/b].", metavar="NAME…")],
    seed: Annotated[int, typer.Option(help="Same seed: same messages, same random moments as far as that goes.")] = 1,
    rate: Annotated[float | None, typer.Option(min=1, help="Messages a second, whatever the drill asks for.")] = None,
    seconds: Annotated[float | None, typer.Option(min=1, help="Seconds that the fleet publishes, whatever the drill asks for.")] = None,
    outage_seconds: Annotated[float | None, typer.Option(min=1, help="Length of the long outages; 600 unless given.")] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="How often drills with rounds cut the power; 20 unless given.")] = None,
    report: Annotated[
        Path | None, typer.Option(help="Folder of report.md and report.json; unless given, .local/drills/<UTC time>.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the folder of a failed drill: logs, data, what was published.")] = False,
) -> None:
    """Run drills one after the other on Mosquitto, Kafka, PostgreSQL and Dagster of their own. Exit code 1 if one fails.

    A running `make up` is not touched. [b]iot drill run all[/b] takes most of an hour; [b]--outage-seconds 60[/b] shortens it.
    """
    from iot_platform.drills.catalog import find_drills
    from iot_platform.drills.rig.drill_run import Options
    from iot_platform.drills.rig.report import Report
    from iot_platform.settings import user_settings

    settings = user_settings()
    try:
        chosen = find_drills(names)
    except LookupError as error:
        raise CliError(str(error.args[0])) from error
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # whoever ends us: mounts and servers go first
    console = terminal.console()
    done = Report(datetime.now(UTC), Options(seed, rate, seconds, outage_seconds, rounds))
    folder = report or settings.local_dir / "drills" / f"{done.started_at:%Y-%m-%dT%H%M%SZ}"
    try:
        _run_all(console, chosen, done, settings.cache_dir, keep=keep)
    finally:
        if done.outcomes:
            _finish(console, done, done.write(folder))
    if not done.passed:
        sys.exit(1)


def _run_all(console: "Console", chosen: Sequence["Drill"], done: "Report", cache_dir: Path, *, keep: bool) -> None:
    from iot_platform.drills.rig.runner import Series
    from iot_platform.local.errors import LocalStackError

    with _status(console) as live:
        series = Series(done, cache_dir=cache_dir, keep=keep, show=_shown(console, live))
        try:
            for drill in chosen:
                _show_outcome(console, series.run(drill))
        except LocalStackError as error:
            raise CliError(str(error)) from error
        except KeyboardInterrupt as error:
            raise CliError("interrupted; nothing is left running") from error
        finally:
            series.close()


def _status(console: "Console") -> AbstractContextManager[Any]:
    return console.status("starting") if console.is_terminal else nullcontext()


def _shown(console: "Console", live: Any) -> "Show":
    """On a terminal one line that changes; else a line now and then, so that a log shows where it is."""
    if live is not None:
        return lambda name, text: live.update(f"[b]{terminal.escape(name)}[/b] {terminal.escape(text)}")
    shown_at: dict[str, float] = {}

    def log(name: str, text: str) -> None:
        if time.monotonic() - shown_at.get(name, -LOG_EVERY_SECONDS) >= LOG_EVERY_SECONDS:
            shown_at[name] = time.monotonic()
            console.print(f"  {name}: {text}", markup=False, soft_wrap=True, highlight=False)

    return log


def _show_outcome(console: "Console", outcome: "Outcome") -> None:
    """One line for each drill, and its problems."""
    if outcome.skipped:
        console.print(
            f"[yellow]–[/yellow] {outcome.drill:<28} skipped: {terminal.escape(outcome.skipped)}", soft_wrap=True, highlight=False
        )
        return
    sign = "[green]✓[/green]" if outcome.passed else "[red]✗[/red]"
    recovery = "" if outcome.recovery_seconds is None else f", recovered in {outcome.recovery_seconds:.1f} s"
    lost = f"{outcome.lost:,} lost" + (" as expected" if outcome.expected_losses and outcome.passed else "")
    counts = f"{outcome.messages:,} messages, {lost}, {outcome.doubled:,} doubled, {outcome.redelivered:,} redelivered{recovery}"
    line = f"{sign} {outcome.drill:<28} {counts}, audit {outcome.audit} [dim]{outcome.seconds:.0f} s[/dim]"
    console.print(line, soft_wrap=True, highlight=False)
    for problem in outcome.problems:
        console.print(f"    [red]{terminal.escape(problem)}[/red]", soft_wrap=True, highlight=False)
    if outcome.kept:
        console.print(f"    kept in {terminal.escape(outcome.kept)}", soft_wrap=True, highlight=False)


def _finish(console: "Console", done: "Report", path: Path) -> None:
    from iot_platform.drills.rig.report import COLUMNS

    table = Table(*COLUMNS, box=None, pad_edge=False, header_style="bold")
    for outcome in done.outcomes:
        table.add_row(*outcome.cells(), style="red" if outcome.verdict == "FAILED" else "")
    if len(done.outcomes) > 1:
        console.print(table)
    total = sum(outcome.messages for outcome in done.outcomes)
    console.print(f"{len(done.outcomes)} drills, {total:,} messages; report: {os.path.relpath(path)}", soft_wrap=True, highlight=False)
