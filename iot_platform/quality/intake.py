"""What is new: puts batches and notes into the rules' queue (quality_feed), and lays out a stretch of it in temporary tables."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from psycopg2.extensions import connection as Connection  # noqa: N812
from psycopg2.extensions import cursor as Cursor  # noqa: N812

from iot_platform.quality.statements import stage_sql
from iot_platform.telemetry.counters import PUNCTUAL_SECONDS

OVERLAP: Final = timedelta(minutes=15)
"""How long a transaction of the drain can take: a batch may be seen that much later than others committed after its time."""
FIRST_LOOK: Final = timedelta(hours=1)
"""How far back the very first evaluation looks."""
MOST_BATCHES: Final = 5_000
MOST_NOTES: Final = 20_000
MOST_RECORDS: Final = 200_000
"""Of one stretch, unless a single batch has more. Measurements are found by time, from PUNCTUAL_SECONDS before the stretch to as long after
it: at 1,000 messages/s a stretch of 50,000 reads six times its own measurements, one of 200,000 twice."""
MOST_RANGES: Final = 20
NOTED_SEGMENTS: Final = 1_000
"""Segments above are noted measurements, below ranges of receipt."""

_ADVANCE: Final = """
UPDATE quality_watermark SET state = state || jsonb_build_object('committed_at', greatest((SELECT max(committed_at) FROM quality_feed),
    (state ->> 'committed_at')::timestamptz)) WHERE rule = 'intake' RETURNING (state ->> 'committed_at')::timestamptz"""
SINCE: Final = "SELECT (state ->> 'committed_at')::timestamptz FROM quality_watermark WHERE rule = 'intake'"
_NEXT: Final = """
SELECT feed_position, records FROM quality_feed WHERE feed_position > %s ORDER BY feed_position LIMIT %s"""
_EDGES: Final = """
SELECT min(committed_at), min(first_received_at) FILTER (WHERE kind = 'drain'), max(last_received_at) FILTER (WHERE kind = 'drain'),
    min(from_offset) FILTER (WHERE kind = 'drain'), max(to_offset) FILTER (WHERE kind = 'drain')
FROM quality_feed WHERE feed_position > %(after)s AND feed_position <= %(upto)s"""


@dataclass(frozen=True)
class Stretch:
    """Positions (after, upto] of the queue; `since`: its first commit, `oldest`: a time before all that its measurements are about;
    `at_the_end`: nothing follows in the queue."""

    after: int
    upto: int
    since: datetime
    oldest: datetime
    at_the_end: bool


def take_in(connection: Connection, now: datetime) -> int:
    """Put new batches and notes into the queue, in one transaction. Returns how many there were; at the limit there are more."""
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO quality_watermark (rule, state) VALUES ('intake', jsonb_build_object('committed_at', %s::timestamptz))"
            " ON CONFLICT DO NOTHING",
            (now - FIRST_LOOK,),
        )
        cursor.execute(SINCE)
        since = row(cursor)[0] - OVERLAP
        cursor.execute(stage_sql("intake_batches"), {"since": since, "most": MOST_BATCHES})
        taken = cursor.rowcount
        cursor.execute(stage_sql("intake_notes"), {"most": MOST_NOTES})
        taken += cursor.rowcount
        cursor.execute(_ADVANCE)
    connection.commit()
    return taken


def next_stretch(connection: Connection, after: int, horizon: datetime) -> Stretch | None:
    """The stretch that follows a position, bounded by records; None at the queue's end."""
    with connection.cursor() as cursor:
        cursor.execute(_NEXT, (after, MOST_BATCHES))
        rows = cursor.fetchall()
        upto, records = after, 0
        for position, count in rows:
            if upto > after and records + count > MOST_RECORDS:
                break
            upto, records = position, records + count
        if upto == after:
            return None
        cursor.execute(_EDGES, {"after": after, "upto": upto})
        since = row(cursor)[0]
    connection.commit()
    return Stretch(after, upto, since, horizon, upto == rows[-1][0] and len(rows) < MOST_BATCHES)


def lay_out(connection: Connection, stretch: Stretch) -> Stretch:
    """Fill the temporary tables with the messages, series and measurements of a stretch; commits."""
    place: dict[str, Any] = {"after": stretch.after, "upto": stretch.upto, "punctual": PUNCTUAL_SECONDS, "most": MOST_RANGES}
    with connection.cursor() as cursor:
        cursor.execute(stage_sql("tables"))
        cursor.execute("TRUNCATE pg_temp.quality_message, pg_temp.quality_series, pg_temp.quality_measurement, pg_temp.quality_found")
        cursor.execute(_EDGES, place)
        _, first_received, last_received, first_offset, end_offset = row(cursor)
        if first_received is not None:
            offsets = {"first_offset": first_offset, "end_offset": end_offset}
            cursor.execute(stage_sql("messages"), {**place, **offsets, "first_received": first_received, "last_received": last_received})
        cursor.execute("ANALYZE pg_temp.quality_message")
        cursor.execute(stage_sql("receipt"), place)
        ranges = cursor.fetchall()
        cursor.execute(stage_sql("series"), place | {"first_time": min((begin for begin, _ in ranges), default="infinity")})
        cursor.execute("ANALYZE pg_temp.quality_series")
        for segment, (begin, end) in enumerate(ranges):
            bounds = {"segment": segment, "first_time": begin, "end_time": end}
            cursor.execute(stage_sql("punctual"), bounds)
            cursor.execute(stage_sql("before"), bounds)
        days = _lay_out_noted(cursor, place)
        cursor.execute("ANALYZE pg_temp.quality_measurement")
    connection.commit()
    return replace(stretch, oldest=min([stretch.oldest, *days, *(begin for begin, _ in ranges)]))


def _lay_out_noted(cursor: Cursor, place: Mapping[str, Any]) -> list[datetime]:
    """Day by day, so that each statement reads the chunks of one."""
    cursor.execute(stage_sql("noted_days"), place)
    days = [day for (day,) in cursor.fetchall()]
    segment = NOTED_SEGMENTS
    for day in days:
        cursor.execute(stage_sql("noted"), {**place, "day": day, "segment": segment})
        cursor.execute(stage_sql("noted_neighbours"), {"day": day, "segment": segment})
        segment += MOST_NOTES
    return days


def row(cursor: Cursor) -> tuple[Any, ...]:
    """The one row of a query that always has one."""
    found = cursor.fetchone()
    if found is None:
        raise RuntimeError("a query without a row")
    return found
