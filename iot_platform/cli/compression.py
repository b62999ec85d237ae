"""`iot compression`: which chunks are compressed, what that saves, and when the disk will be full."""

from contextlib import closing
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from iot_platform.cli import terminal
from iot_platform.cli.errors import CliError
from iot_platform.compression.formats import age_text, outlook_text, size

if TYPE_CHECKING:
    from rich.console import Console

    from iot_platform.compression.chunks import Chunk
    from iot_platform.compression.forecast import Forecast
    from iot_platform.database.capabilities import Capabilities

compression_app = typer.Typer(
    name="compression", help="Compression of old chunks (Community edition), and the disk forecast (both editions).", no_args_is_help=True
)


@compression_app.command("show")
def show_command(chunks: Annotated[bool, typer.Option("--chunks", help="A line for each chunk, too.")] = False) -> None:
    """Policies, ratio per table, bytes per day, and days until the disk limit (IOT_DISK_LIMIT_BYTES)."""
    from iot_platform.compression.chunks import read_chunks, read_policies
    from iot_platform.compression.forecast import forecast
    from iot_platform.database import DatabaseError, connect
    from iot_platform.database.capabilities import read_capabilities
    from iot_platform.settings import get_settings

    settings = get_settings()
    try:
        with closing(connect(settings, "writer", "iot-compression")) as connection:
            report, policies, found = read_capabilities(connection), read_policies(connection), read_chunks(connection)
            outlook = forecast(connection, settings)
    except DatabaseError as error:
        raise CliError(str(error)) from error
    console = terminal.console(highlight=False)
    _show_edition(console, report, outlook)
    table = _table("table", "compressed after", "late share", "chunks", "compressed", "bytes", "before", "ratio", "due")
    for policy in policies:
        own = [chunk for chunk in found if chunk.table == policy.table]
        age = age_text(policy.older_than) if policy.enabled else "never (off)"
        table.add_row(policy.table, age, f"{policy.late_share:g}", *_sums(own))
    console.print(table)
    if chunks:
        console.print(_chunk_table(found))
    _show_forecast(console, outlook)


@compression_app.command("set")
def set_command(
    table: Annotated[str, typer.Argument(help="measurement, message or ledger.")],
    older_than: Annotated[str | None, typer.Option(help="Compress chunks that ended so long ago: 12h, 7d.")] = None,
    late_share: Annotated[
        float | None, typer.Option(help="Compress again once late rows take more than this share of the compressed bytes.")
    ] = None,
    enabled: Annotated[bool | None, typer.Option("--on/--off", help="Whether chunks of this table are compressed at all.")] = None,
) -> None:
    """Change a policy; it holds from the next run on. Nothing is decompressed."""
    import getpass

    from iot_platform.compression.chunks import set_policy
    from iot_platform.compression.errors import CompressionError
    from iot_platform.database import DatabaseError, connect
    from iot_platform.settings import get_settings

    if older_than is None and late_share is None and enabled is None:
        raise CliError("nothing to set: give --older-than, --late-share, --on or --off")
    age = None if older_than is None else parse_age(older_than)
    try:
        with closing(connect(get_settings(), "writer", "iot-compression")) as connection:
            set_policy(connection, table, getpass.getuser(), older_than=age, late_share=late_share, enabled=enabled)
    except (CompressionError, DatabaseError) as error:
        raise CliError(str(error)) from error
    terminal.echo(f"{table}: changed; it holds from the next run on")


@compression_app.command("run")
def run_command(
    table: Annotated[str | None, typer.Option(help="Only chunks of this table.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what is due, change nothing.")] = False,
) -> None:
    """Compress every chunk that is due now, oldest first, as the daily schedule does. May be stopped and repeated at any point."""
    from iot_platform.compression.compress import Done, compress
    from iot_platform.database import DatabaseError
    from iot_platform.settings import get_settings

    console, numbers = terminal.console(highlight=False), iter(range(1, 10**9))

    def show(item: Done, total: int) -> None:
        ratio = item.bytes_before / max(1, item.bytes_after)
        console.print(
            f"{next(numbers)}/{total} {item.table} {item.start:%Y-%m-%d %H:%M}: {item.action}, {item.rows or 0:,} rows,"
            f" {size(item.bytes_before)} → {size(item.bytes_after)} ({ratio:.1f}×) in {item.seconds:.1f} s"
        )

    try:
        result = compress(get_settings(), table=table, dry_run=dry_run, on_done=show)
    except DatabaseError as error:
        raise CliError(str(error)) from error
    if not result.available or dry_run:
        console.print(_chunk_table(result.due))
        would = sum(chunk.bytes for chunk in result.due)
        console.print(f"{len(result.due)} chunk(s) of {size(would)} are due" + ("" if result.available else ", and nothing was done:"))
    if not result.available:
        _show_missing(console, result.capabilities)
        raise typer.Exit(0 if dry_run else 1)
    for name in result.postponed:
        console.print(f"postponed: {name} is in use by writers or other maintenance")
    if not dry_run:
        console.print(f"{len(result.done)} chunk(s): {size(result.bytes_before)} → {size(result.bytes_after)} in {result.seconds:.1f} s")


def parse_age(text: str) -> timedelta:
    """12h, 7d, 2w as a duration.

    Raises:
        CliError: it is none.
    """
    units = {"h": "hours", "d": "days", "w": "weeks"}
    number, unit = text.strip()[:-1], text.strip()[-1:].lower()
    if unit not in units or not number.isdigit():
        raise CliError(f"'{text}' is no duration: write hours, days or weeks, such as 12h, 7d or 2w")
    try:
        return timedelta(**{units[unit]: int(number)})
    except OverflowError as error:
        raise CliError(f"'{text}' is too long") from error


def _show_edition(console: "Console", report: "Capabilities", outlook: "Forecast") -> None:
    console.print(report.headline())
    if not report.has("compression"):
        _show_missing(console, report)
        console.print(f"At the present rate that costs about {size(outlook.lost_a_day)} a day (compression saves about 90 %).")


def _show_missing(console: "Console", report: "Capabilities") -> None:
    for item in report.missing:
        if item.name == "compression":
            console.print(f"[yellow]No compression:[/yellow] {item.text}. To have it: {terminal.escape(item.remedy)}.", soft_wrap=True)


def _sums(chunks: "list[Chunk]") -> tuple[str, ...]:
    packed = [chunk for chunk in chunks if chunk.compressed]
    before, after = sum(chunk.plain_bytes for chunk in packed), sum(chunk.bytes for chunk in packed)
    ratio = f"{before / after:.1f}×" if after else "-"
    due = sum(chunk.due is not None for chunk in chunks)
    return str(len(chunks)), str(len(packed)), size(sum(chunk.bytes for chunk in chunks)), size(before) if packed else "-", ratio, str(due)


def _chunk_table(chunks: "list[Chunk]") -> object:
    table = _table("table", "from (UTC)", "rows", "bytes", "before", "ratio", "late", "due")
    for chunk in chunks:
        ratio = f"{chunk.ratio:.1f}×" if chunk.ratio else "-"
        rows = f"{chunk.rows:,}" if chunk.rows else "-"
        before = size(chunk.plain_bytes) if chunk.compressed else "-"
        late = size(chunk.late_bytes) if chunk.compressed else "-"
        table.add_row(chunk.table, f"{chunk.start:%Y-%m-%d %H:%M}", rows, size(chunk.bytes), before, ratio, late, chunk.due or "")
    return table


def _table(*columns: str) -> "Table":  # type: ignore[name-defined]  # noqa: F821
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number in (0, 1) or column == "due" else "right")
    return table


def _show_forecast(console: "Console", outlook: "Forecast") -> None:
    table = _table("table", "bytes", "a day", "kept", "compressed after")
    for item in outlook.tables:
        keep = age_text(item.keep) if item.keep else "for ever"
        packed = f"{age_text(item.compress_after)}, {item.ratio:.1f}×" if item.compress_after and outlook.community else "-"
        table.add_row(item.table, size(item.bytes), size(item.day_bytes), keep, packed)
    console.print(table)
    console.print(
        f"The database holds {size(outlook.bytes)}; the last week added {size(outlook.day_bytes)} a day before compression"
        f" ({outlook.messages_a_day:,} messages and {outlook.measurements_a_day:,} measurements in the last 24 hours)."
    )
    console.print(outlook_text(outlook))


def register(app: typer.Typer) -> None:
    """Add `compression` to the app."""
    app.add_typer(compression_app)
