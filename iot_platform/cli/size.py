"""`iot size`: cores, memory, disk, Kafka partitions and shards that a load needs, and what was assumed."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from iot_platform.cli import terminal
from iot_platform.cli.errors import CliError

if TYPE_CHECKING:
    from iot_platform.sizing import Load, Size

WIDTH = 30


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(size)


def size(  # noqa: PLR0917 - every parameter is an option
    messages_per_second: Annotated[float, typer.Option(help="Messages a second, on average over the busiest hour.")],
    measurements: Annotated[float, typer.Option(help="Measurements of a message.")],
    retention: Annotated[float, typer.Option(help="Days for which measurements are kept.")],
    payload_bytes: Annotated[int, typer.Option(help="Bytes of a payload.")] = 200,
    projects: Annotated[int, typer.Option(help="Projects that send.")] = 10,
    series: Annotated[int | None, typer.Option(help="Series; unless given, as if each device sent once a minute.")] = None,
    flat: Annotated[bool, typer.Option("--flat", help="Documents of numbers only, with a time in milliseconds.")] = False,
    compression: Annotated[bool, typer.Option("--compression", help="TimescaleDB's Community edition, which compresses.")] = False,
    message_days: Annotated[float, typer.Option(help="Days for which raw messages are kept.")] = 3,
    kafka_days: Annotated[float, typer.Option(help="Days for which Kafka keeps records.")] = 7,
    replicas: Annotated[int, typer.Option(help="Kafka's copies of a record, a broker each.")] = 1,
    wal_archive_days: Annotated[float, typer.Option(help="Days of archived WAL (IOT_BACKUP_KEEP_DAYS); 0 without backups.")] = 14,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, with every figure and its source.")] = False,
) -> None:
    """Say what a load needs: cores, memory, disk, Kafka partitions, shards; with the figures that it is computed from.

    Nothing is asked of any server. Every figure was measured on two cores with everything on them, and rates are planned at half of that
    (docs/performance.md).

    [b]iot size --messages-per-second 1000 --measurements 3 --retention 90 --compression[/b]
    """
    from iot_platform import sizing

    load = sizing.Load(
        messages_per_second, measurements, retention, payload_bytes,
        projects=projects, series=series, flat=flat, compression=compression, message_days=message_days,
        kafka_days=kafka_days, replicas=replicas, wal_archive_days=wal_archive_days,
    )  # fmt: skip
    try:
        found = sizing.size(load)
    except ValueError as error:
        raise CliError(str(error)) from error
    if as_json:
        terminal.echo_json({"load": asdict(load), **asdict(found), "figures": [asdict(figure) for figure in sizing.figures()]})
    else:
        _print(load, found)


def _print(load: "Load", found: "Size") -> None:
    from iot_platform import sizing

    terminal.echo(f"{'Kafka partitions':<{WIDTH}}{found.partitions:>12}")
    terminal.echo(f"{'shards (IOT_DRAIN_SHARDS)':<{WIDTH}}{found.shards:>12}")
    terminal.echo(f"{'ingest daemons':<{WIDTH}}{found.ingest_daemons:>12}")
    _part("cores", found.cores, 1, "cores", digits=2)
    _part("memory", found.memory_mb, 1, "MB")
    _part("disk", found.disk_bytes, 1e9, "GB", digits=1)
    terminal.echo("\nassumed")
    terminal.echo(f"  {load.known_series:,.0f} series; rates planned at {sizing.PLANNED_SHARE:.0%} of what was measured")
    terminal.echo(f"  messages kept for {load.message_days:g} days, rollups {load.rollup_days:g}, Kafka's records {load.kafka_days:g}")
    terminal.echo("  not counted: operating system, quarantine, full backups (each about a ninth of the database), the 8 GiB of the spool")
    for figure in sizing.figures():
        terminal.echo(f"  {figure.value:>9,g} {figure.unit:<20} {figure.what} ({figure.source})")
    for warning in found.warnings:
        terminal.echo(f"warning: {warning}", err=True)


def _part(title: str, parts: dict[str, float], unit_value: float, unit: str, digits: int = 0) -> None:
    terminal.echo(f"\n{title:<{WIDTH}}{sum(parts.values()) / unit_value:>12,.{digits}f} {unit}")
    for part, value in parts.items():
        terminal.echo(f"  {part:<{WIDTH - 2}}{value / unit_value:>12,.{digits}f}")
