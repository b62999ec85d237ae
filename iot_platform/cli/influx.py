"""`iot influx`: InfluxDB servers that follow the ledger: how they are, copying history, proving that both stores agree."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Final

import typer

from iot_platform.cli import terminal
from iot_platform.cli.database import migrated
from iot_platform.cli.errors import CliError
from iot_platform.cli.times import parse_time

if TYPE_CHECKING:
    from iot_platform.influx.compare import Comparison
    from iot_platform.influx.target import Target
    from iot_platform.settings import Settings

UNREACHABLE: Final = 2
group = typer.Typer(name="influx", help="InfluxDB as a second store: status, backfill, compare, schema.", no_args_is_help=True)

Sink = Annotated[str | None, typer.Option(help="Which one, where IOT_INFLUX_URL names several.")]
Since = Annotated[str, typer.Option("--from", help="Measurement time: ISO 8601 (UTC), or 2h, 3d ago.")]
Until = Annotated[str, typer.Option("--to", help="Up to this time, without it; now unless given.")]
Tenant = Annotated[str, typer.Option(help="Only this tenant.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(group)


@group.command("status")
def status_command(*, as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False) -> None:
    """Show how far each InfluxDB is, and what it refused. Exit code 1: one is late, has trouble, or lacks points."""
    from iot_platform.influx import status
    from iot_platform.influx.target import targets
    from iot_platform.settings import get_settings

    with _errors():
        configured = {each.name: each for each in targets(get_settings())}
    with migrated("reader", "iot-influx") as connection:
        found, lacking = status.read(connection), status.missing(connection)
    if as_json:
        terminal.echo_json({"sinks": [vars(each) for each in found], "refused": [vars(each) for each in lacking]}, str)
    else:
        if not configured:
            terminal.echo("IOT_INFLUX_URL is not set: no InfluxDB follows this platform")
        for name in configured.keys() - {each.sink for each in found}:
            terminal.echo(f"{name}: has not begun; Dagster's sensor influx_lag starts it")
        for each in found:
            state = f"does not take data: {each.error}" if each.error else "works"
            note = "" if each.sink in configured else " (not in IOT_INFLUX_URL any more)"
            terminal.echo(
                f"{each.sink}{note}: {state}; {each.lag:,} records behind ({each.behind_seconds:.0f} s), {each.written:,} points written, "
                f"{each.retries:,} retries, {each.series:,} series, {each.missing:,} points refused, {each.backfills} open backfills"
            )
        for item in lacking:
            terminal.echo(f"  {item.sink} lacks {item.points:,} points ({item.reason}), such as: {item.example}")
    late = (each.error or each.missing or each.behind_seconds > status.LATE_SECONDS for each in found if each.sink in configured)
    if any(late):
        raise typer.Exit(1)


@group.command("backfill")
def backfill_command(*, since: Since, until: Until = "0s", tenant: Tenant = "", sink: Sink = None) -> None:
    """Copy measurements by their time: history from before an InfluxDB followed, or what it lost. May be stopped and begun again (the same
    command goes on where it was; Dagster finishes it in any case), and repeated: nothing is doubled.

    [b]iot influx backfill --from 90d[/b]

    Exit code 0: done. 1: a setting is wrong. 2: a server does not answer.
    """
    settings, target, begin, end = _place(since, until, sink)
    from iot_platform.influx import backfill
    from iot_platform.influx.by_hand import Copying

    with _errors(), migrated("writer", "iot-influx") as connection, _bar(begin, end) as show:
        rounded = begin.replace(second=0, microsecond=0), end.replace(second=0, microsecond=0)
        with closing(Copying(settings, target, connection)) as copying:
            backfill.add(connection, target.name, *rounded, tenant)
            written = copying.run(*rounded, tenant, lambda at, points: show(at, f"{points:,} points"))
    terminal.echo(f"{target.name}: {written:,} points written")


@group.command("compare")
def compare_command(
    *,
    since: Since,
    until: Until = "0s",
    tenant: Tenant = "",
    sink: Sink = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Prove that an InfluxDB has what the main store has: counts and checksums of each series and hour.

    [b]iot influx compare --from 2d --to 10m[/b]

    Exit code 0: equal. 1: something differs; the first difference is named. 2: a server does not answer.
    """
    settings, target, begin, end = _place(since, until, sink)
    from iot_platform.influx.compare import compare

    def note(at: datetime, done: "Comparison") -> None:
        show(at, f"{done.points:,} points, {len(done.differences):,} hours differ")

    with _errors(), migrated("reader", "iot-influx"), _bar(begin, end) as show:
        result = compare(settings, target, begin, end, tenant=tenant, on_hour=note)
    if as_json:
        sums = {name: getattr(result, name) for name in ("hours", "series", "points", "equal")}
        terminal.echo_json({**sums, "differences": [vars(each) for each in result.differences]}, str)
    else:
        terminal.echo(f"{target.name}: {result.hours:,} hours, {result.points:,} points: {'equal' if result.equal else 'different'}")
        if result.differences:
            first = result.differences[0]
            terminal.echo(
                f"{len(result.differences):,} hours of series differ, first: {first.tenant}/{first.project}/{first.device} {first.metric} "
                f"at {first.hour:%Y-%m-%dT%H:%MZ}: {first.here:,} points here, {first.there:,} there; at {first.time_us} µs "
                f"{first.here_is} here, {first.there_is} there"
            )
    if not result.equal:
        raise typer.Exit(1)


@group.command("schema")
def schema_command(*, sink: Sink = None) -> None:
    """Show how a measurement is written, and what is set for the servers. No password is shown."""
    from iot_platform.influx.lines import Row, line, series_key
    from iot_platform.influx.target import targets
    from iot_platform.settings import get_settings

    settings = get_settings()
    with _errors():
        known = [each for each in targets(settings) if sink in (None, each.name)]
    for each in known:
        policy = each.retention_policy or "its default one"
        terminal.echo(f"{each.name}: {each.address}, database {each.database}, retention policy {policy}")
    prefix = series_key(settings.influx_measurement, ("sensor-001", "temp", "1968193691042586624", "1968193631353446400"))
    terminal.echo("tags device, metric, project, tenant; fields value (float), value_int, value_bool, value_text; times in ns")
    at = 1732550400000000
    examples = ((25.3, None, None), (1.0, None, "true"), (None, None, "on"), (9007199254740992.0, 9007199254740993, None))
    for values in examples:
        terminal.echo(line(prefix, Row(1, at, *values)))


def _place(since: str, until: str, sink: str | None) -> "tuple[Settings, Target, datetime, datetime]":
    from iot_platform.influx.target import target
    from iot_platform.settings import get_settings

    if find_spec("urllib3") is None:
        raise CliError("`iot influx` needs the package urllib3, which is not installed: pip install 'iot-platform[influx]'")
    settings, begin, end = get_settings(), parse_time(since), parse_time(until)
    if begin >= end:
        raise CliError(f"--from {begin:%Y-%m-%dT%H:%M:%SZ} is not before --to {end:%Y-%m-%dT%H:%M:%SZ}")
    with _errors():
        return settings, target(settings, sink), begin, end


@contextmanager
def _errors() -> Iterator[None]:
    from iot_platform.influx.errors import InfluxConfigError, InfluxError

    try:
        yield
    except InfluxConfigError as error:
        raise CliError(str(error)) from error
    except InfluxError as error:
        raise CliError(str(error), UNREACHABLE) from error


@contextmanager
def _bar(begin: datetime, end: datetime) -> "Iterator[Show]":
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:3.0f}%"), TimeElapsedColumn())
    with Progress(*columns, console=terminal.console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=(end - begin).total_seconds())

        def show(at: datetime, text: str) -> None:
            progress.update(task, completed=(at - begin).total_seconds(), description=f"{at:%Y-%m-%d %H:%M}  {text}")

        yield show


if TYPE_CHECKING:
    from collections.abc import Callable

    Show = Callable[[datetime, str], None]
