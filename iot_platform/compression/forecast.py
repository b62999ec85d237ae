"""How much the database will hold: each table's new bytes a day, less what compression saves and retention removes, day by day."""

import shutil
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from psycopg2.extensions import connection as Connection  # noqa: N812

from iot_platform.settings import Settings, stack_notes

RECENT_DAYS: Final = 7.0
HORIZON_DAYS: Final = 1100
"""Three years: by then every table has reached what its retention keeps."""
DAY: Final = timedelta(days=1)
RATIO: Final = 10.0
"""Bytes before over bytes after where nothing is compressed yet: measured 12.7 for a dense fleet's measurements, 7.4 for a sparse one's."""

_CHUNKS: Final = "SELECT table_name, range_start, range_end, bytes, plain_bytes, compressed FROM disk_chunks()"
_FACTS: Final = """
SELECT pg_database_size(current_database()), now(), timescale_edition() = 'community',
       (SELECT min(hour) FROM accounting_1h WHERE hour > now() - INTERVAL '8 days'),
       a.messages, a.measurements
FROM (
    SELECT round(sum(a.messages * p.inside))::bigint AS messages, round(sum(a.measurements * p.inside))::bigint AS measurements
    FROM accounting_1h a CROSS JOIN LATERAL (SELECT least(1, extract(epoch FROM a.hour - now() + INTERVAL '25 hours') / 3600) AS inside) p
    WHERE a.hour > now() - INTERVAL '25 hours'
) a"""
"""Of the hour in which the last 24 hours began, as much as lies in them."""
_COMPRESSION: Final = "SELECT table_name, older_than FROM compression_policy WHERE enabled"
_RETENTION: Final = "SELECT table_name, keep FROM retention_policy WHERE tenant_id = '' AND project_id = ''"


class Piece(NamedTuple):
    """A chunk. `plain_bytes` is what it takes, or took, uncompressed."""

    table: str
    start: datetime
    end: datetime
    bytes: int
    plain_bytes: int
    compressed: bool


@dataclass(frozen=True)
class TableGrowth:
    """One hypertable: what it holds, what a day adds uncompressed, and what becomes of it. None: never, or unknown."""

    table: str
    bytes: int
    day_bytes: float
    compress_after: timedelta | None
    keep: timedelta | None
    ratio: float


@dataclass(frozen=True)
class Forecast:
    """The answer. `day_bytes` are what a day adds before compression; `messages_a_day`, `measurements_a_day` those of the last 24 hours.

    `days` is None where no limit is known, or it is not reached within three years.
    """

    community: bool
    bytes: int
    seen: timedelta
    """The time whose growth was measured: the last week, or since the first message if that is later."""
    day_bytes: float
    messages_a_day: int
    measurements_a_day: int
    limit: int | None
    limit_source: str
    days: float | None
    steady_bytes: int
    """The most that the database takes within three years, at the present rate and policies."""
    saved_a_day: float
    """Bytes that each day adds less because of compression."""
    lost_a_day: float
    """Bytes that each day adds more because there is none (Apache edition)."""
    tables: tuple[TableGrowth, ...]


def forecast(connection: Connection, settings: Settings) -> Forecast:
    """Forecast from the chunks of the last week and the policies in force; any role. Rolls back."""
    with connection.cursor() as cursor:
        cursor.execute(_FACTS)
        row = cursor.fetchone()
        assert row is not None  # noqa: S101  a query without FROM
        total, now, community, first_hour, messages, measurements = row
        cursor.execute(_CHUNKS)
        pieces = [Piece(*item) for item in cursor.fetchall()]
        cursor.execute(_COMPRESSION)
        ages = dict(cursor.fetchall())
        cursor.execute("SELECT to_regclass('public.retention_policy') IS NOT NULL")
        known = cursor.fetchone()
        keeps = {}
        if known and known[0]:
            cursor.execute(_RETENTION)
            keeps = dict(cursor.fetchall())
    connection.rollback()
    limit, source = disk_limit(settings, total)
    since = max(now - timedelta(days=RECENT_DAYS), first_hour or now - timedelta(days=RECENT_DAYS))
    tables = tuple(_growth(pieces, now, since, ages, keeps))
    others = max(0, total - sum(item.bytes for item in tables))
    reached, most = _simulate(tables, pieces, others, now, limit, community=community)
    saving = sum(item.day_bytes * (1 - 1 / item.ratio) for item in tables if item.compress_after is not None)
    return Forecast(
        community=community,
        bytes=total,
        seen=now - since,
        day_bytes=sum(item.day_bytes for item in tables),
        messages_a_day=messages or 0,
        measurements_a_day=measurements or 0,
        limit=limit,
        limit_source=source,
        days=reached,
        steady_bytes=most,
        saved_a_day=saving if community else 0.0,
        lost_a_day=0.0 if community else saving,
        tables=tables,
    )


def disk_limit(settings: Settings, database_bytes: int) -> tuple[int | None, str]:
    """The most that the database may take, and where that comes from: the setting, or this machine's disk when the database is local."""
    if settings.disk_limit_bytes is not None:
        return settings.disk_limit_bytes, "IOT_DISK_LIMIT_BYTES"
    data = settings.local_dir / "data" / "postgresql"
    if data.exists() and stack_notes().get("database_url") == settings.writer_url:
        return database_bytes + shutil.disk_usage(data).free, f"free disk at {data}"
    return None, "no limit known: set IOT_DISK_LIMIT_BYTES"


def _growth(
    pieces: Iterable[Piece],
    now: datetime,
    since: datetime,
    ages: dict[str, timedelta],
    keeps: dict[str, timedelta],
) -> Iterable[TableGrowth]:
    by_table: dict[str, list[Piece]] = defaultdict(list)
    for piece in pieces:
        by_table[piece.table].append(piece)
    for table, chunks in sorted(by_table.items()):
        # Of a chunk in which a young database began, all rows are newer; where a history lies before it, rows are spread over the chunk.
        born = since if all(chunk.end > since for chunk in chunks) else None
        packed = [chunk for chunk in chunks if chunk.compressed]
        before, after = sum(chunk.plain_bytes for chunk in packed), sum(chunk.bytes for chunk in packed)
        ratio = before / after if after else RATIO
        recent = sum(chunk.plain_bytes * _overlap(chunk, since, now, born) for chunk in chunks)
        day_bytes = recent / max((now - since) / DAY, 1 / 24)
        yield TableGrowth(table, sum(chunk.bytes for chunk in chunks), day_bytes, ages.get(table), keeps.get(table), max(ratio, 1.0))


def _overlap(chunk: Piece, since: datetime, now: datetime, born: datetime | None) -> float:
    """The share of a chunk's rows that came since then: of those that its past part holds, from `born` on."""
    begin, end = max(chunk.start, born or chunk.start), min(chunk.end, now)
    return max(0.0, (end - max(begin, since)) / (end - begin)) if end > begin else 0.0


def _simulate(
    tables: tuple[TableGrowth, ...], pieces: list[Piece], others: int, now: datetime, limit: int | None, *, community: bool
) -> tuple[float | None, int]:
    """Days until the limit (None: not within the horizon), and the most bytes within it."""
    own = {table.table: [piece for piece in pieces if piece.table == table.table] for table in tables}
    most, reached = 0, None
    for day in range(HORIZON_DAYS + 1):
        total = int(others + sum(_table_bytes(table, own[table.table], now, day, community=community) for table in tables))
        most = max(most, total)
        if reached is None and limit is not None and total > limit:
            reached = float(max(0, day - 1))
    return reached, most


def _table_bytes(table: TableGrowth, pieces: list[Piece], now: datetime, day: int, *, community: bool) -> float:
    """Bytes of the table so many days from now."""
    then = now + day * DAY
    keep = then - table.keep if table.keep is not None else datetime.min.replace(tzinfo=UTC)
    pack = then - table.compress_after if table.compress_after is not None and community else datetime.min.replace(tzinfo=UTC)
    total = 0.0
    for piece in pieces:
        if piece.end > keep:
            total += piece.bytes if piece.compressed or piece.end > pack else piece.bytes / table.ratio
    kept = min(float(day), table.keep / DAY) if table.keep is not None else float(day)
    plain = min(kept, table.compress_after / DAY) if table.compress_after is not None and community else kept
    return total + table.day_bytes * (plain + (kept - plain) / table.ratio)
