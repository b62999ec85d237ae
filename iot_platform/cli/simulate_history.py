"""`iot simulate --history`: fills the database with a fleet's history."""

import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import typer

from iot_platform.cli import terminal
from iot_platform.cli.errors import CliError
from iot_platform.cli.times import parse_start
from iot_platform.signals import stop_on_signals

if TYPE_CHECKING:
    from iot_platform.simulator.history.fill import HistoryProgress

STOPPED: Final = 130
UNREACHABLE: Final = 2
LOG_EVERY_SECONDS: Final = 30.0
"""How often progress is shown where there is no terminal."""
_PERIOD: Final = re.compile(r"(\d+)([dh])")
_MICROSECONDS: Final = {"d": 86_400_000_000, "h": 3_600_000_000}
MINUTE_US: Final = 60_000_000


def fill(period: str, end: str, options: Mapping[str, int | None], *, quiet: bool) -> None:
    """Write the past of `period` before `end` (ISO 8601; empty: the last full minute).

    Raises:
        CliError: what was asked for contradicts itself or the database; exit code 2 when the database does not answer.
    """
    import psycopg2

    from iot_platform.database import DatabaseError
    from iot_platform.settings import get_settings
    from iot_platform.simulator.history import HistoryError, HistoryOptions
    from iot_platform.simulator.history.fill import HistoryFill

    end_us = parse_start(end) // MINUTE_US * MINUTE_US
    if end_us > time.time_ns() // 1000:
        raise CliError(f"--start {end} has not come yet: a history is the past")
    chosen = {name: value for name, value in options.items() if value is not None}
    begun = time.monotonic()
    try:
        wanted = HistoryOptions(start_us=end_us - _length_us(period), end_us=end_us, **chosen)
        stop = threading.Event()
        with stop_on_signals(stop), _progress(quiet) as show:
            work = HistoryFill(get_settings(), wanted, period_is_fixed=bool(end), on_progress=show, on_retry=_show_retry, stop=stop)
            progress = work.run()
    except HistoryError as error:
        raise CliError(str(error)) from error
    except (DatabaseError, psycopg2.Error) as error:
        raise CliError(f"{' '.join(str(error).split())}; what was written stays, repeat the command to go on", UNREACHABLE) from error
    _report(progress, time.monotonic() - begun, quiet=quiet)
    if not progress.finished:
        raise typer.Exit(STOPPED)


def _show_retry(reason: str) -> None:
    terminal.echo(f"trying again: {reason}", err=True)


def _length_us(period: str) -> int:
    match = _PERIOD.fullmatch(period.strip())
    if match is None or not int(match[1]):
        raise CliError(f"--history must be a period such as 90d or 12h, not {period!r}")
    return int(match[1]) * _MICROSECONDS[match[2]]


def _report(progress: "HistoryProgress", seconds: float, *, quiet: bool) -> None:
    if quiet:
        return
    if progress.finished and not progress.written:
        terminal.echo(f"nothing to do: this history is there, {progress.there:,} measurements")
        return
    rate = f"{progress.written / seconds:,.0f}/s" if seconds else "–"
    terminal.echo(
        f"wrote {progress.written:,} measurements in {seconds:.1f} s ({rate})"
        + (f", {progress.there:,} were there" if progress.there else "")
        + ("" if progress.finished else "; stopped early: repeat the command to go on")
    )


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[["HistoryProgress"], None]]:
    """A bar on a terminal, else a line now and then."""
    if quiet:
        yield lambda _: None
        return
    begun = time.monotonic()
    if not sys.stdout.isatty():
        next_at = begun + LOG_EVERY_SECONDS

        def log(progress: "HistoryProgress") -> None:
            nonlocal next_at
            if time.monotonic() >= next_at:
                next_at += LOG_EVERY_SECONDS
                terminal.echo(f"wrote {progress.there + progress.written:,} of about {progress.total:,} measurements")

        yield log
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("writing"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
    with Progress(*columns, transient=True) as bar:
        task = bar.add_task("writing", total=None, rate="")

        def show(progress: "HistoryProgress") -> None:
            rate = f"{progress.written / max(time.monotonic() - begun, 1e-3):,.0f}/s"
            done = progress.there + progress.written
            bar.update(task, total=max(progress.total, done), completed=done, rate=rate)

        yield show
