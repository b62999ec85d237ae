"""`iot rollup`: the hourly and daily rollups by hand: bring them up to date, compute a range anew, see how far they are."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from iot_platform.cli import terminal
from iot_platform.cli.errors import CliError
from iot_platform.cli.times import parse_time

if TYPE_CHECKING:
    from iot_platform.rollups import RebuildStep, RollupResult, RollupStatus

UNREACHABLE: Final = 2
STOPPED: Final = 130
group = typer.Typer(name="rollup", help="Hourly and daily rollups: run, rebuild, status.", no_args_is_help=True, rich_markup_mode="rich")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(group)


@group.command()
def run(
    *,
    seconds: Annotated[float, typer.Option(min=0.1, help="Stop after about this long; the next run goes on.")] = 240.0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Bring measurement_1h and measurement_1d up to date: what the schedule does every 5 minutes. Safe at any time; may be killed.

    [b]iot rollup run[/b]

    Exit code 0: up to date. 1: something is left (run again). 2: the database does not answer.
    """
    from iot_platform.rollups import roll_up
    from iot_platform.settings import get_settings

    with _errors(), _note() as note:
        result = roll_up(get_settings(), seconds, on_batch=lambda done: note(f"{done.changed:,} buckets changed, {done.notes:,} notes"))
    if as_json:
        terminal.echo_json(result.as_json(), str)
    else:
        terminal.echo(_told(result))
    if not result.complete:
        raise typer.Exit(1)


@group.command()
def rebuild(
    *,
    since: Annotated[str, typer.Option("--from", help="First hour: ISO 8601 (UTC), or 2h, 3d ago.")],
    until: Annotated[str, typer.Option("--to", help="First hour that stays; now unless given.")] = "0s",
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's series.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what would change, and change nothing.")] = False,
) -> None:
    """Compute stored rollups anew from the measurements, ignoring the stored values. Hours whose
    measurements retention removed stay as they are.

    Needed only after somebody changed measurements by hand. Safe beside draining and schedules; may be killed and begun again.

    [b]iot rollup rebuild --from 2026-11-01 --to 2026-11-08 --dry-run[/b]
    [b]iot rollup rebuild --from 3d --tenant 1968193631353446400[/b]

    Exit code 0: done. 1: wrong range or tenant. 2: the database does not answer. 130: stopped by Ctrl-C.
    """
    from iot_platform.rollups import Rebuild
    from iot_platform.settings import get_settings

    start, end = parse_time(since), parse_time(until)
    if start >= end:
        raise CliError(f"--from {_utc(start)} is not before --to {_utc(end)}")
    work = Rebuild(get_settings(), start, end, tenant, dry_run)
    rows = changed = kept = 0
    reached = start
    try:
        with _errors(), _progress() as show:
            for step in work.steps():
                rows, changed, kept, reached = rows + step.rows, changed + step.changed, max(kept, step.kept_series), step.day
                show(step)
    except KeyboardInterrupt:
        terminal.echo(f"stopped; what is done stays. Go on with --from {reached.astimezone(UTC):%Y-%m-%dT%H:%MZ}", err=True)
        raise typer.Exit(STOPPED) from None
    would = "would change" if dry_run else "changed"
    terminal.echo(f"{rows:,} measurements read, {changed:,} buckets {would}")
    if kept:
        terminal.echo(f"hours of up to {kept:,} series are kept as they are: retention removed their measurements, fully or partly")


@group.command()
def status(*, as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False) -> None:
    """How far the rollups are stored, and what waits to be computed anew."""
    from iot_platform.rollups import rollup_status
    from iot_platform.settings import get_settings

    with _errors():
        found = rollup_status(get_settings())
    if as_json:
        terminal.echo_json(found.as_json(), str)
        return
    for name, value in _lines(found):
        terminal.echo(f"{name:<16} {value}")


def _lines(found: "RollupStatus") -> Iterator[tuple[str, str]]:
    yield "hours stored", f"before {_utc(found.threshold)} (about {found.stored_hours:,} rows); later ones are computed when asked for"
    yield "days stored", f"before {_utc(found.threshold_1d)} (about {found.stored_days:,} rows)"
    yield "noting changes", f"before {_utc(found.notes_below)}"
    oldest = f", oldest hour {_utc(found.oldest_note)}" if found.oldest_note else ""
    yield "notes waiting", f"{found.notes:,}{oldest}"
    for table, tenant, project, before in found.marks:
        whose = f" of {'/'.join(filter(None, (tenant, project)))}" if tenant else ""
        yield "retention", f"{table}{whose} is removed before {before}"


def _told(result: "RollupResult") -> str:
    text = f"{result.rows:,} measurements read, {result.changed:,} buckets changed, {result.notes:,} notes taken in {result.seconds:.1f} s"
    if result.discarded:
        text += f"\n{result.discarded:,} notes were older than retention: their buckets stay as they are"
    text += f"\nhours before {_utc(result.threshold_after)} are stored"
    if not result.complete:
        text += f"\nnot finished{f': {result.hindered}' if result.hindered else ''}; run it again"
    return text


def _utc(time: datetime | None) -> str:
    return "the beginning" if time is None else f"{time.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


@contextmanager
def _errors() -> Iterator[None]:
    import psycopg2

    from iot_platform.database import DatabaseError

    try:
        yield
    except LookupError as error:
        raise CliError(str(error)) from error
    except (DatabaseError, psycopg2.OperationalError) as error:
        raise CliError(" ".join(str(error).split()), UNREACHABLE) from error
    except psycopg2.errors.UndefinedTable as error:
        raise CliError("the database lacks the rollups' tables: run `iot migrate`") from error


@contextmanager
def _note() -> Iterator[Any]:
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    with terminal.console(stderr=True).status("rolling up …") as shown:
        yield lambda text: shown.update(f"rolling up: {text}")


@contextmanager
def _progress() -> Iterator[Any]:
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), TextColumn("{task.percentage:>3.0f} %"), TextColumn("{task.description}"), TimeRemainingColumn())
    with Progress(*columns, console=terminal.console(stderr=True)) as progress:
        task = progress.add_task("", total=1.0)

        def show(step: "RebuildStep") -> None:
            progress.update(task, completed=step.part, description=_utc(step.day))

        yield show
