"""Copies measurements by time: what a sink should have of history, and what it missed. Slice by slice, each noted when it is there."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from psycopg2.extensions import connection as Connection  # noqa: N812
from psycopg2.extensions import cursor as Cursor  # noqa: N812

from iot_platform.database.interval import interval
from iot_platform.influx import stored
from iot_platform.influx.books import Books
from iot_platform.influx.shipping import Shipped, Shipper

SLICE: Final = timedelta(minutes=10)
"""Measurement time that is copied before it is noted; it is held in memory."""

_NOTE: Final = """
WITH wanted AS (
    SELECT 'epoch'::timestamptz + %(begin)s::interval AS from_time, 'epoch'::timestamptz + %(end)s::interval AS to_time
), gone AS (
    DELETE FROM sink_backfill b USING wanted w
    WHERE b.sink = %(sink)s AND b.tenant_id = '' AND b.from_time <= w.to_time AND b.to_time >= w.from_time
    RETURNING b.from_time, b.to_time
)
INSERT INTO sink_backfill (sink, from_time, to_time, done_to)
SELECT %(sink)s, min(t.from_time), max(t.to_time), min(t.from_time)
FROM (SELECT * FROM wanted UNION ALL SELECT * FROM gone) t
ON CONFLICT (sink, tenant_id, from_time, to_time) DO UPDATE SET done_to = excluded.done_to, changed_at = now()"""
_ADD: Final = """
INSERT INTO sink_backfill (sink, tenant_id, from_time, to_time, done_to) VALUES (%s, %s, %s, %s, %s)
ON CONFLICT (sink, tenant_id, from_time, to_time) DO NOTHING"""
_OPEN: Final = """
SELECT tenant_id, from_time, to_time, done_to FROM sink_backfill WHERE sink = %s ORDER BY changed_at, tenant_id, from_time"""
_DONE: Final = """
UPDATE sink_backfill SET done_to = %s, changed_at = now()
WHERE sink = %s AND tenant_id = %s AND from_time = %s AND to_time = %s AND done_to = %s"""
_END: Final = "DELETE FROM sink_backfill WHERE sink = %s AND tenant_id = %s AND from_time = %s AND to_time = %s AND done_to >= to_time"
_NEXT: Final = """
SELECT min(m.time) FROM measurement m
WHERE m.time >= %s AND m.time < %s AND (%s = '' OR m.series_id IN (SELECT s.series_id FROM series s WHERE s.tenant_id = %s))"""


@dataclass(frozen=True)
class Backfill:
    """A row of sink_backfill."""

    tenant: str
    begin: datetime
    end: datetime
    done_to: datetime


def note(cursor: Cursor, sink: str, begin: int, end: int) -> None:
    """[begin, end) in µs is to be copied; overlapping ones become one."""
    cursor.execute(_NOTE, {"sink": sink, "begin": interval(begin), "end": interval(end)})


def note_tenant(cursor: Cursor, sink: str, tenant: str) -> None:
    """All that a tenant has, up to what the future may hold."""
    begin, end = datetime(1970, 1, 1, tzinfo=UTC), datetime.now(UTC) + timedelta(days=1)
    cursor.execute(_ADD, (sink, tenant, begin, end, begin))


def add(connection: Connection, sink: str, begin: datetime, end: datetime, tenant: str = "") -> None:
    """A backfill, unless the same one is open: that one goes on. Commits."""
    with connection.cursor() as cursor:
        cursor.execute(_ADD, (sink, tenant, begin, end, begin))
    connection.commit()


def pending(connection: Connection, sink: str) -> list[Backfill]:
    """Those that are not finished; the one that was worked on longest ago first."""
    with connection.cursor() as cursor:
        cursor.execute(_OPEN, (sink,))
        found = [Backfill(*row) for row in cursor.fetchall()]
    connection.rollback()
    return found


def advance(connection: Connection, books: Books, shipper: Shipper, over: Callable[[], bool]) -> bool:
    """Work on all that is open until `over`; whether nothing is left. Under the sink's lock."""
    while waiting := pending(connection, books.sink):
        work = waiting[0]
        while work.done_to < work.end and not over():
            work = step(connection, books, shipper, work)
        shipper.flush()
        if over():
            return not pending(connection, books.sink)
    return True


def step(
    connection: Connection, books: Books, shipper: Shipper, work: Backfill, on_written: Callable[[int], None] = lambda _: None
) -> Backfill:
    """Bring the next slice that has anything on its way; returns what is left behind it. It is noted when it is there, which
    `shipper.flush` waits for. `on_written` gets how many points were written. Under the sink's lock, so that what is read is the newest
    when it is written."""
    begin = _first(connection, work)
    end = min(work.end, begin + SLICE)
    # A server-side cursor lives in a transaction, and shipping commits: what the slice has is read first.
    with closing(stored.between(connection, begin, end, work.tenant)) as parts:
        rows = [row for part in parts for row in part]
    shipper.clear(rows, begin, end)

    def shipped(found: Shipped) -> None:
        with connection.cursor() as cursor:
            books.delivered(cursor, found.written, found.refused)
        connection.commit()
        on_written(len(found.written))

    def ended() -> None:
        with connection.cursor() as cursor:
            place = (books.sink, work.tenant, work.begin, work.end)
            cursor.execute(_DONE, (end, *place, work.done_to))
            cursor.execute(_END, place)
        connection.commit()

    for start in range(0, len(rows), stored.FETCH):
        shipper.ship(rows[start : start + stored.FETCH], shipped)
    shipper.then(ended)
    return replace(work, done_to=end)


def _first(connection: Connection, work: Backfill) -> datetime:
    """Where the next measurement is: empty time is passed over."""
    with connection.cursor() as cursor:
        cursor.execute(_NEXT, (work.done_to, work.end, work.tenant, work.tenant))
        (found,) = cursor.fetchone() or (None,)
    connection.rollback()
    return found or work.end
