"""How far the rollups are: for people and for asset metadata."""

from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final

from iot_platform.database import connect
from iot_platform.rollups.calls import count_notes, state
from iot_platform.settings import Settings

_OLDEST_NOTE: Final = "SELECT (extract(epoch FROM min(bucket)))::float8 FROM (SELECT bucket FROM rollup_change LIMIT 100000) n"
_STORED: Final = """
SELECT coalesce(sum(greatest(k.reltuples, 0)) FILTER (WHERE c.hypertable_name = 'measurement_1h_stored'), 0),
    coalesce(sum(greatest(k.reltuples, 0)) FILTER (WHERE c.hypertable_name = 'measurement_1d_stored'), 0)
FROM timescaledb_information.chunks c JOIN pg_class k ON k.oid = to_regclass(format('%I.%I', c.chunk_schema, c.chunk_name))
WHERE c.hypertable_schema = 'public'"""
_MARKS: Final = """
SELECT table_name, tenant_id, project_id, removed_before::text FROM retention_mark
WHERE table_name IN ('measurement', 'measurement_1h', 'measurement_1d') ORDER BY 1, 2, 3 LIMIT 100"""


@dataclass(frozen=True, slots=True)
class RollupStatus:
    """`threshold`: hours before it are stored; `threshold_1d`: days; `notes_below`: hours up to it are being stored, and changes in them
    noted. None: nowhere yet. `stored_hours`, `stored_days`: PostgreSQL's estimates. `marks`: (table, tenant, project, before)."""

    threshold: datetime | None
    threshold_1d: datetime | None
    notes_below: datetime | None
    notes: int
    oldest_note: datetime | None
    stored_hours: int
    stored_days: int
    marks: list[tuple[str, str, str, str]]

    def as_json(self) -> dict[str, Any]:
        """Plain values by name."""
        return asdict(self)


def rollup_status(settings: Settings) -> RollupStatus:
    """Read it.

    Raises:
        DatabaseError, psycopg2.Error: the database does not answer.
    """
    with closing(connect(settings, "reader", "iot-rollup-status")) as connection:
        threshold, threshold_1d, notes_below = state(connection)
        notes = count_notes(connection)
        with connection.cursor() as cursor:
            cursor.execute(_OLDEST_NOTE)
            oldest = cursor.fetchone()
            cursor.execute(_STORED)
            hours, days = cursor.fetchone() or (0, 0)
            cursor.execute(_MARKS)
            marks = cursor.fetchall()
    oldest_note = None if oldest is None or oldest[0] is None else datetime.fromtimestamp(oldest[0], UTC)
    return RollupStatus(threshold, threshold_1d, notes_below, notes, oldest_note, int(hours), int(days), marks)
