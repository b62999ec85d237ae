"""Calls of the SQL functions that keep the rollups (sql/repeatable/rollup_upkeep.sql): one call is one transaction."""

from datetime import UTC, datetime
from typing import Any, Final

import psycopg2
from psycopg2.extensions import connection as Connection  # noqa: N812

_STATE: Final = """
SELECT (extract(epoch FROM CASE WHEN isfinite(threshold) THEN threshold END))::float8,
    (extract(epoch FROM CASE WHEN isfinite(threshold_1d) THEN threshold_1d END))::float8,
    (extract(epoch FROM CASE WHEN isfinite(notes_below) THEN notes_below END))::float8 FROM rollup_state"""


def call(connection: Connection, query: str, parameters: tuple[Any, ...], *, keep: bool = True) -> dict[str, Any]:
    """Call a function that returns one JSON object, and commit; or, unless `keep`, roll back.

    Raises:
        psycopg2.Error: nothing of the batch happened.
    """
    try:
        with connection.cursor() as cursor:
            cursor.execute(query, parameters)
            row = cursor.fetchone()
        if keep:
            connection.commit()
        else:
            connection.rollback()
    except psycopg2.Error:
        if not connection.closed:
            connection.rollback()
        raise
    result: dict[str, Any] = row[0] if row else {}
    return result


def state(connection: Connection) -> tuple[datetime | None, datetime | None, datetime | None]:
    """Threshold, threshold of days, and before what changes are noted; None: nowhere yet."""
    with connection.cursor() as cursor:
        cursor.execute(_STATE)
        row = cursor.fetchone()
    connection.commit()
    if row is None:
        raise LookupError("rollup_state has no row: INSERT INTO rollup_state DEFAULT VALUES")
    threshold, threshold_1d, notes_below = (None if value is None else datetime.fromtimestamp(value, UTC) for value in row)
    return threshold, threshold_1d, notes_below


def count_notes(connection: Connection, most: int = 1_000_000) -> int:
    """Notes that wait, counted up to `most`."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM (SELECT FROM rollup_change LIMIT %s) n", (most,))
        row = cursor.fetchone()
    connection.commit()
    return int(row[0]) if row else 0
