"""Computes the stored rollups of a range from the measurements, ignoring the stored values: after somebody changed measurements by hand."""

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import psycopg2
from psycopg2.extensions import connection as Connection  # noqa: N812

from iot_platform.database import connect
from iot_platform.database.batches import BatchSize
from iot_platform.rollups.buckets import DAY, HOUR, ceiling, floor
from iot_platform.rollups.calls import call, state
from iot_platform.settings import Settings

LOCK_TRIES: Final = 6
_REBUILD: Final = "SELECT rollup_rebuild(%s, %s, %s, %s, %s)"
_OLDEST: Final = """
SELECT (extract(epoch FROM min(range_start)))::float8 FROM timescaledb_information.chunks
WHERE hypertable_schema = 'public' AND isfinite(range_start)
    AND hypertable_name IN ('measurement', 'measurement_1h_stored', 'measurement_1d_stored')"""
_COUNT: Final = "SELECT count(*) FROM series WHERE %(tenant)s::text IS NULL OR tenant_id = %(tenant)s"


@dataclass(frozen=True, slots=True)
class RebuildStep:
    """One committed batch. `day`: where to begin again if this was the last one; `part`: of the whole range done, 0…1; `rows`: measurements
    read; `changed`: hours and days that were wrong; `kept_series`: series of which retention has removed measurements of this day, and
    whose hours therefore stay as they are."""

    day: datetime
    part: float
    rows: int
    changed: int
    kept_series: int


@dataclass(frozen=True)
class Rebuild:
    """[since, until) of one tenant or of all, widened to whole hours. Runs beside everything else; may be killed and repeated."""

    settings: Settings
    since: datetime
    until: datetime
    tenant: str | None = None
    dry_run: bool = False

    def steps(self) -> Iterator[RebuildStep]:
        """Do it, one batch after the other. `dry_run`: each is rolled back. What is not stored yet, because
        it is computed when asked for, is left out.

        Raises:
            LookupError: the tenant has no series. psycopg2.Error, DatabaseError: the batch did not happen; go on from the last step's day.
        """
        low, high = floor(self.since, HOUR), ceiling(min(self.until, datetime.now(UTC) + DAY), HOUR)
        with closing(connect(self.settings, application_name="rollup-rebuild")) as connection:
            threshold, *_ = state(connection)
            series = self._count(connection)
            if threshold is not None:
                low = max(low, self._oldest(connection))  # not day by day through what is empty
                yield from self._days(connection, low, min(high, threshold), series)

    def _oldest(self, connection: Connection) -> datetime:
        with connection.cursor() as cursor:
            cursor.execute(_OLDEST)
            row = cursor.fetchone()
        connection.commit()
        return floor(datetime.fromtimestamp(row[0], UTC), DAY) if row and row[0] is not None else datetime.now(UTC)

    def _count(self, connection: Connection) -> int:
        with connection.cursor() as cursor:
            cursor.execute(_COUNT, {"tenant": self.tenant})
            row = cursor.fetchone()
        connection.commit()
        count = int(row[0]) if row else 0
        if self.tenant is not None and not count:
            raise LookupError(f"tenant {self.tenant!r} has no series")
        return count

    def _days(self, connection: Connection, low: datetime, high: datetime, series: int) -> Iterator[RebuildStep]:
        size, begin = BatchSize(50, 20_000), low
        while series and begin < high:
            end, after, done_series = min(high, floor(begin, DAY) + DAY), 0, 0
            while True:
                started, wanted = time.monotonic(), size.value
                done = self._batch(connection, (begin, end, after, wanted, self.tenant), size)
                if done is None:
                    continue
                if done["series"] == wanted:
                    size.learn(time.monotonic() - started)
                done_series += done["series"]
                finished = done["series"] < wanted
                inside = 1.0 if finished else min(1.0, done_series / series)
                part = ((begin - low) + (end - begin) * inside) / (high - low)
                yield RebuildStep(end if finished else begin, part, done["rows"], done["changed"], done["kept_series"])
                if finished:
                    break
                after = done["last_series"]
            begin = end

    def _batch(self, connection: Connection, parameters: tuple[object, ...], size: BatchSize) -> dict[str, int] | None:
        """None: it took too long, and the next one is smaller."""
        for attempt in range(LOCK_TRIES):
            try:
                return call(connection, _REBUILD, parameters, keep=not self.dry_run)
            except psycopg2.errors.LockNotAvailable:
                if attempt == LOCK_TRIES - 1:
                    raise
            except psycopg2.errors.QueryCanceled:
                if not size.shrink():
                    raise
                break
        return None
