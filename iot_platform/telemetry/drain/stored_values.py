"""Reads single measurements that are stored, for the few keys at which more than one claims to stand."""

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from psycopg2.extensions import cursor as Cursor  # noqa: N812

from iot_platform.database.interval import interval
from iot_platform.telemetry.drain.values import Positions, Value, Values, value_key

WINDOW_US: Final = 4_096
"""How much of a series one look at the table takes."""
_US: Final = "(extract(epoch FROM {}) * 1000000)::bigint"
# In all: the times as a range of constants, too, or TimescaleDB would look into every chunk.
_AT: Final = """
SELECT v.position, m.value, m.value_int, m.value_text, m.flags
FROM unnest(%s::int[], %s::int[], %s::bigint[]) v (position, series_id, time)
JOIN LATERAL (
    SELECT m.value, m.value_int, m.value_text, m.flags FROM measurement m
    WHERE m.series_id = v.series_id AND m.time = 'epoch'::timestamptz + v.time * interval '1 microsecond'
      AND m.time BETWEEN 'epoch'::timestamptz + %s::interval AND 'epoch'::timestamptz + %s::interval LIMIT 1
) m ON true"""
_BETWEEN: Final = f"""
SELECT {_US.format("m.time")}, m.value, m.value_int, m.value_text, m.flags FROM measurement m
WHERE m.series_id = %s AND m.time >= 'epoch'::timestamptz + %s::interval AND m.time < 'epoch'::timestamptz + %s::interval"""  # noqa: S608
_LATEST: Final = f"""
SELECT l.series_id, {_US.format("l.time")}, l.value, l.value_int, l.value_text, l.flags FROM series_latest l
WHERE l.series_id = ANY (%s)"""  # noqa: S608 - parts of our own, as above and below
_BEFORE: Final = f"""
SELECT v.position, {_US.format("m.time")}, m.value, m.value_int, m.value_text, m.flags
FROM unnest(%s::int[], %s::int[], %s::bigint[]) v (position, series_id, time)
JOIN LATERAL (
    SELECT m.time, m.value, m.value_int, m.value_text, m.flags FROM measurement m
    WHERE m.series_id = v.series_id AND m.time <= 'epoch'::timestamptz + v.time * interval '1 microsecond'
      AND m.time <= 'epoch'::timestamptz + %s::interval ORDER BY m.time DESC LIMIT 1
) m ON true"""  # noqa: S608


class Stored(NamedTuple):
    """A stored measurement: its time in µs, its value, its flags (0: null)."""

    time: int
    value: Value
    flags: int


def stored_at(cursor: Cursor, values: Values, positions: Positions) -> dict[int, Stored]:
    """What is stored at the keys of these measurements, by position; those without anything are missing."""
    if not len(positions):
        return {}
    series, times = values.series[positions], values.time[positions]
    edges = interval(times.min()), interval(times.max())
    cursor.execute(_AT, (positions.tolist(), series.tolist(), times.tolist(), *edges))
    return {at: _stored(int(values.time[at]), row) for at, *row in cursor.fetchall()}


def stored_between(cursor: Cursor, series: int, begin: int, end: int) -> dict[int, Stored]:
    """What a series has at begin ≤ time < end (µs), by time."""
    cursor.execute(_BETWEEN, (series, interval(begin), interval(end)))
    return {time: _stored(time, row) for time, *row in cursor.fetchall()}


def stored_around(cursor: Cursor, series: int, time: int) -> dict[int, Stored]:
    """What a series has in the WINDOW_US around a time (µs), by time: for those that look at one microsecond after the other."""
    begin = time // WINDOW_US * WINDOW_US
    return stored_between(cursor, series, begin, begin + WINDOW_US)


def latest_of(cursor: Cursor, series: Iterable[int]) -> dict[int, Stored]:
    """The latest measurement of each series that has one."""
    cursor.execute(_LATEST, (list(series),))
    return {number: _stored(time, row) for number, time, *row in cursor.fetchall()}


def stored_before(cursor: Cursor, values: Values, positions: list[int]) -> dict[int, Stored]:
    """For each of these measurements the last one of its series that is not later, by position; those without any are missing."""
    if not positions:
        return {}
    series, times = values.series[positions].tolist(), values.time[positions].tolist()
    cursor.execute(_BEFORE, (positions, series, times, interval(max(times))))
    return {at: _stored(time, row) for at, time, *row in cursor.fetchall()}


def _stored(time: int, row: "list[Any]") -> Stored:
    value, value_int, value_text, flags = row
    return Stored(time, value_key(value, value_int, value_text), flags or 0)
