"""Rollups on the Community edition: TimescaleDB notes what changes, and is told to refresh its continuous aggregates.

A refresh over removed measurements would remove their rollup, so no window begins before a retention mark of everybody. (A mark of one
tenant or project does not bound it: retention removes these rollups with the measurements.)
"""

import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import psycopg2
from psycopg2.extensions import connection as Connection  # noqa: N812

from iot_platform.database import connect
from iot_platform.rollups.result import RollupResult
from iot_platform.settings import Settings

HOUR: Final = timedelta(hours=1)
DAY: Final = timedelta(days=1)
SETTLE: Final = timedelta(minutes=15)
"""Hours are materialized when they ended this long ago; before, a query computes them."""
_WINDOW: Final = timedelta(days=10)
_UNITS: Final = (("measurement_1h", "measurement", HOUR), ("measurement_1d", "measurement_1h", DAY))
_CALL: Final = "CALL refresh_continuous_aggregate(%s, %s::timestamptz, %s::timestamptz)"
_FORCE: Final = "CALL refresh_continuous_aggregate(%s, %s::timestamptz, %s::timestamptz, force => true)"
_FEWER: Final = "SET timescaledb.materializations_per_refresh_window = 1000"
"""Its default of 10 would compute everything between the first and the last of eleven late rows."""
_OLDEST: Final = """
SELECT (extract(epoch FROM min(range_start)))::float8 FROM timescaledb_information.chunks WHERE hypertable_name = 'measurement'"""
_SHOWN: Final = """
SELECT (extract(epoch FROM _timescaledb_functions.to_timestamp(_timescaledb_functions.cagg_watermark(h.id))))::float8
FROM timescaledb_information.continuous_aggregates a JOIN _timescaledb_catalog.hypertable h
    ON h.schema_name = a.materialization_hypertable_schema AND h.table_name = a.materialization_hypertable_name
WHERE a.view_schema = 'public' AND a.view_name = %s AND EXISTS (SELECT FROM timescaledb_information.chunks c
    WHERE c.hypertable_schema = h.schema_name AND c.hypertable_name = h.table_name)"""
_MARK: Final = """
SELECT (extract(epoch FROM removed_before))::float8 FROM retention_mark
WHERE table_name = %s AND tenant_id = '' AND project_id = '' AND isfinite(removed_before)"""


def refresh(settings: Settings, result: RollupResult, deadline: float, until: datetime | None) -> None:
    """Refresh both, hours first, in windows, from the oldest one that retention left, until `deadline` (time.monotonic)."""
    until = (until or datetime.now(UTC) - SETTLE).astimezone(UTC)
    with closing(open_owner(settings)) as connection:
        for aggregate, source, unit in _UNITS:
            low, shown = begins(connection, source, unit), _one_time(connection, _SHOWN, aggregate)
            high = max(
                floor(until, unit), shown or floor(until, unit)
            )  # a clock that was ahead made hours that go on: nothing else computes them
            while low is not None and low < high:
                if time.monotonic() >= deadline:
                    return
                end = min(high, low + _WINDOW)
                call(connection, aggregate, low, end)
                result.batches += 1
                low = end
    result.complete = True


def begins(connection: Connection, source: str, unit: timedelta) -> datetime | None:
    """Where windows may begin: the first bucket whose source is all there; None if there are no measurements at all."""
    oldest, whole = _one_time(connection, _OLDEST), whole_from(connection, source, unit)
    if oldest is None:
        return None
    first = floor(oldest, unit)
    return first if whole is None else max(first, whole)


def whole_from(connection: Connection, source: str, unit: timedelta) -> datetime | None:
    """The first bucket of whose source retention took nothing from everybody; None: it never took anything."""
    mark = _one_time(connection, _MARK, source)
    return None if mark is None else ceiling(mark, unit)


def floor(at: datetime, unit: timedelta) -> datetime:
    """The beginning of its bucket."""
    epoch = datetime.fromtimestamp(0, UTC)
    return epoch + (at - epoch) // unit * unit


def ceiling(at: datetime, unit: timedelta) -> datetime:
    """The beginning of the first bucket that does not begin before it."""
    below = floor(at, unit)
    return below if below == at else below + unit


def open_owner(settings: Settings) -> Connection:
    """A connection that may refresh: as the owner, without a transaction around its statements."""
    connection = connect(settings, "admin", "rollup")
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            cursor.execute(_FEWER)
    except psycopg2.Error:  # a release without it
        if connection.closed:
            raise
    return connection


def call(connection: Connection, aggregate: str, low: datetime, high: datetime, *, force: bool = False) -> None:
    """Refresh [low, high); `force`: also what TimescaleDB holds to be up to date."""
    with connection.cursor() as cursor:
        cursor.execute(_FORCE if force else _CALL, (aggregate, low, high))
    del connection.notices[:]  # it says which windows were up to date


def _one_time(connection: Connection, query: str, *parameters: Any) -> datetime | None:
    with connection.cursor() as cursor:
        cursor.execute(query, parameters)
        row = cursor.fetchone()
    return None if row is None or row[0] is None else datetime.fromtimestamp(row[0], UTC)
