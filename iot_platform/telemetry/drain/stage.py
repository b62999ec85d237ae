"""The temporary table through which measurements go that may meet others: statements over it, inside the caller's transaction."""

import io
from typing import Final

from psycopg2.extensions import cursor as Cursor  # noqa: N812

from iot_platform.database.copy_binary import HEADER, TRAILER, encode
from iot_platform.database.interval import interval
from iot_platform.telemetry.drain.values import Positions, Values

COPY_SIZE: Final = 8 * 1024 * 1024
"""Bytes per read of copy_expert: each read waits up to 5 ms for the interpreter lock that the decoding thread holds."""

_STAGE: Final = "COPY pg_temp.measurement_stage (position, time, series_id, value, value_int,{flags} value_text) FROM STDIN (FORMAT binary)"
_PLAIN: Final = _STAGE.format(flags="")
_FLAGGED: Final = _STAGE.format(flags=" flags,")
CREATE: Final = """
CREATE TEMPORARY TABLE IF NOT EXISTS measurement_stage (
    position integer, time timestamptz, series_id integer, value double precision, value_int bigint, value_text text, flags smallint
) ON COMMIT DELETE ROWS"""
_INSERT: Final = """
INSERT INTO measurement (time, series_id, value, value_int, value_text, flags)
SELECT time, series_id, value, value_int, value_text, flags FROM pg_temp.measurement_stage ORDER BY series_id, time, position
ON CONFLICT DO NOTHING RETURNING series_id, (extract(epoch FROM time) * 1000000)::bigint"""
_COMPARE: Final = """
SELECT s.position, CASE WHEN m.found THEN s.value_int IS NOT DISTINCT FROM m.value_int
    AND s.value_text COLLATE "C" IS NOT DISTINCT FROM m.value_text COLLATE "C"
    AND float8send(s.value) IS NOT DISTINCT FROM float8send(m.value) END
FROM pg_temp.measurement_stage s LEFT JOIN LATERAL (
    SELECT true AS found, m.value, m.value_int, m.value_text FROM measurement m
    WHERE m.series_id = s.series_id AND m.time = s.time
      AND m.time BETWEEN 'epoch'::timestamptz + %s::interval AND 'epoch'::timestamptz + %s::interval LIMIT 1
) m ON true"""
_REPLACE: Final = """
INSERT INTO measurement AS m (time, series_id, value, value_int, value_text, flags)
SELECT time, series_id, value, value_int, value_text, flags FROM pg_temp.measurement_stage ORDER BY series_id, time
ON CONFLICT (series_id, time) DO UPDATE
SET value = excluded.value, value_int = excluded.value_int, value_text = excluded.value_text, flags = excluded.flags"""
_LATEST: Final = """
INSERT INTO series_latest AS l (time, series_id, value, value_int, value_text, flags)
SELECT time, series_id, value, value_int, value_text, flags FROM pg_temp.measurement_stage ORDER BY series_id
ON CONFLICT (series_id) DO UPDATE
SET time = excluded.time, value = excluded.value, value_int = excluded.value_int, value_text = excluded.value_text, flags = excluded.flags
WHERE excluded.time > l.time"""
_REPLACE_LATEST: Final = """
UPDATE series_latest l SET value = s.value, value_int = s.value_int, value_text = s.value_text, flags = s.flags
FROM pg_temp.measurement_stage s WHERE l.series_id = s.series_id AND l.time = s.time"""
_EMPTY: Final = "DELETE FROM pg_temp.measurement_stage"


def copy(cursor: Cursor, query: str, pieces: list[bytes]) -> None:
    """COPY encoded rows."""
    cursor.copy_expert(query, io.BytesIO(b"".join((HEADER, *pieces, TRAILER))), size=COPY_SIZE)


def fill(cursor: Cursor, values: Values, rows: Positions) -> None:
    """Put these measurements there."""
    query = _PLAIN if values.flags is None else _FLAGGED
    copy(cursor, query, encode(values.columns(rows, with_position=True), len(rows)))


def insert_staged(cursor: Cursor) -> set[tuple[int, int]]:
    """Insert what is not there yet, in order of arrival; series and times (µs) of what was inserted. The stage stays."""
    cursor.execute(_INSERT)
    return set(cursor.fetchall())


def insert_new(cursor: Cursor, values: Values, rows: Positions) -> set[tuple[int, int]]:
    """Insert these; series and times (µs) of those that were not there yet."""
    fill(cursor, values, rows)
    inserted = insert_staged(cursor)
    cursor.execute(_EMPTY)
    return inserted


def compare(cursor: Cursor, values: Values, rows: Positions) -> dict[int, bool | None]:
    """Whether the table has the same value at each staged position, None where it has none; empties the stage."""
    window = [interval(edge) for edge in (values.time[rows].min(), values.time[rows].max())]
    cursor.execute(_COMPARE, window)
    same = dict(cursor.fetchall())
    cursor.execute(_EMPTY)
    return same


def replace_values(cursor: Cursor, values: Values, rows: Positions) -> None:
    """Put these in the place of what is stored at their keys; no key twice."""
    fill(cursor, values, rows)
    cursor.execute(_REPLACE)
    cursor.execute(_EMPTY)


def update_latest(cursor: Cursor, values: Values, rows: Positions) -> None:
    """Take these, one per series, into series_latest where they are later. They stay in the stage."""
    fill(cursor, values, rows)
    cursor.execute(_LATEST)


def replace_latest(cursor: Cursor, values: Values, rows: Positions) -> None:
    """Take the values of these into series_latest where it has their times. They stay in the stage."""
    cursor.execute(_EMPTY)
    fill(cursor, values, rows)
    cursor.execute(_REPLACE_LATEST)
