"""Measurements put in by plain INSERT under the notes' contract, and what the rollups must say of them, reckoned in Python.

Takes any connection that may write and maintain (the owner's), so that the same tests run on both editions of TimescaleDB.
"""

import operator
from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import reduce
from typing import Any

from psycopg2.extensions import connection as Connection  # noqa: N812
from psycopg2.extras import execute_values

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
LIMIT = 1e290
Row = tuple[datetime, int, float | None, str | None]
"""Time, series, number, text."""
Bucket = tuple[datetime, int]
Figures = tuple[int, int, float | None, float | None, float | None, float | None, float | None, float | None]
"""count, numbers, min, max, sum, avg, first, last."""

_EMPTY = """
TRUNCATE measurement, measurement_1h_stored, measurement_1d_stored, series, project, rollup_change, retention_mark CASCADE;
UPDATE rollup_state SET threshold = '-infinity', threshold_1d = '-infinity', notes_below = '-infinity', fill_end = NULL, fill_1d_end = NULL,
    note_page = 0, fill_series = 0, fill_1d_series = 0"""
_SERIES = """
WITH p AS (INSERT INTO project (tenant_id, project_id) VALUES (%(tenant)s, %(project)s) ON CONFLICT DO NOTHING)
INSERT INTO series (identity, tenant_id, project_id, device_id, metric)
SELECT sha256(convert_to(%(tenant)s || %(project)s || i, 'UTF8')), %(tenant)s, %(project)s, 'device', 'm' || i
FROM generate_series(1, %(count)s) i RETURNING series_id"""
_INSERT = """
WITH new AS (
    INSERT INTO measurement (time, series_id, value, value_text)
    SELECT v.time::timestamptz, v.series_id::integer, v.value::float8, v.text::text FROM (VALUES %s) v (time, series_id, value, text)
    ON CONFLICT DO NOTHING RETURNING time, series_id
)
INSERT INTO rollup_change (bucket, series_id)
SELECT DISTINCT date_bin('1 hour', time, '2000-01-01 00:00+00'), series_id FROM new, rollup_state WHERE time < notes_below"""
_REMOVE = """
WITH old AS (DELETE FROM measurement WHERE series_id = %s AND time >= %s AND time < %s RETURNING time, series_id)
INSERT INTO rollup_change (bucket, series_id)
SELECT DISTINCT date_bin('1 hour', time, '2000-01-01 00:00+00'), series_id FROM old, rollup_state WHERE time < notes_below"""
_FIGURES = "SELECT bucket, series_id, value_count, numbers, value_min, value_max, value_sum, value_avg, value_first, value_last FROM {}"


class RollupFeed:
    """One connection, autocommit off."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.community = self.rows("SELECT timescale_edition()") == [("community",)]

    def rows(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Execute and commit; the rows, if any."""
        with self.connection.cursor() as cursor:
            cursor.execute(query, parameters)
            found = cursor.fetchall() if cursor.description is not None else []
        self.connection.commit()
        return found

    def clear(self) -> None:
        """No series, no measurements, nothing rolled up."""
        self.rows(_EMPTY)

    def series(self, count: int, tenant: str = "t", project: str = "p") -> list[int]:
        """New series of one project."""
        with self.connection.cursor() as cursor:
            cursor.execute(_SERIES, {"tenant": tenant, "project": project, "count": count})
            ids = [row[0] for row in cursor.fetchall()]
        self.connection.commit()
        return sorted(ids)

    def insert(self, rows: Iterable[Row], *, commit: bool = True) -> None:
        """As a drain does: lock, look, insert and note in one transaction. Not committed: rolled back, as by a kill."""
        with self.connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock_shared(lock_key('rollup-threshold'))")
            execute_values(cursor, _INSERT, list(rows), page_size=10_000)
        self._end(commit)

    def remove(self, series: int, since: datetime, until: datetime, *, commit: bool = True) -> None:
        """Delete measurements, and note their hours."""
        with self.connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(lock_key('rollup-threshold'))")
            cursor.execute(_REMOVE, (series, since, until))
        self._end(commit)

    def _end(self, commit: bool) -> None:
        if commit:
            self.connection.commit()
        else:
            self.connection.rollback()

    def refresh(self, notes: int = 100_000, *, commit: bool = True) -> dict[str, int]:
        """One batch of notes."""
        return self._call("SELECT rollup_refresh(%s)", notes, commit=commit)

    def advance(self, until: datetime, series: int = 100_000, *, commit: bool = True) -> dict[str, Any]:
        """One batch of hours or days that are not stored yet."""
        return self._call("SELECT rollup_advance(%s, %s)", series, until, commit=commit)

    def _call(self, query: str, *parameters: object, commit: bool) -> dict[str, Any]:
        with self.connection.cursor() as cursor:
            cursor.execute(query, parameters)
            row = cursor.fetchone()
        self._end(commit)
        assert row is not None
        return dict(row[0])

    def compress(self, late_share: float, *, commit: bool = True) -> int:
        """Compress every chunk of measurement that is due, as the asset does; returns how many. On Apache, nothing."""
        if not self.community:
            return 0
        with self.connection.cursor() as cursor:
            cursor.execute("UPDATE compression_policy SET late_share = %s WHERE table_name = 'measurement'", (late_share,))
            cursor.execute("SELECT compression_apply(chunk_name) FROM compression_chunks() WHERE due <> '' AND table_name = 'measurement'")
            count = cursor.rowcount
        self._end(commit)
        return count

    def roll_up(self, until: datetime) -> None:
        """Until nothing is left."""
        while self.advance(until)["step"] != "done":
            pass
        while self.refresh()["notes"]:
            pass

    def noted(self) -> set[Bucket]:
        """Hours with a note."""
        return {(bucket, series) for bucket, series in self.rows("SELECT DISTINCT bucket, series_id FROM rollup_change")}

    def measurements(self) -> list[Row]:
        """All of them."""
        return self.rows("SELECT time, series_id, value, value_text FROM measurement ORDER BY time")

    def shown(self, name: str) -> dict[Bucket, Figures]:
        """What a rollup says."""
        found = {(row[0], row[1]): row[2:] for row in self.rows(_FIGURES.format(name))}
        assert len(found) == self.rows(f"SELECT count(*) FROM {name}")[0][0], f"{name} has a bucket twice"
        return found


def hours(measurements: Iterable[Row]) -> dict[Bucket, Figures]:
    """What measurement_1h must say of these measurements."""
    groups: dict[Bucket, list[float | None]] = defaultdict(list)
    for time, series, value, _ in sorted(measurements, key=operator.itemgetter(0)):
        groups[time.astimezone(UTC).replace(minute=0, second=0, microsecond=0), series].append(value)
    found: dict[Bucket, Figures] = {}
    for key, values in groups.items():
        numbers = [value for value in values if value is not None]
        has_sum = all(abs(value) <= LIMIT for value in numbers)
        found[key] = _figures((len(values), len(numbers)), numbers, numbers if has_sum else None, numbers)
    return found


def days(by_hour: dict[Bucket, Figures]) -> dict[Bucket, Figures]:
    """What measurement_1d must say of these hours."""
    groups: dict[Bucket, list[Figures]] = defaultdict(list)
    for (bucket, series), figures in sorted(by_hour.items()):
        groups[bucket.replace(hour=0), series].append(figures)
    found: dict[Bucket, Figures] = {}
    for key, parts in groups.items():
        full = [part for part in parts if part[1]]
        edges = [value for part in full for value in (part[2], part[3]) if value is not None]
        ends = [value for part in full for value in (part[6], part[7]) if value is not None]
        sums = [part[4] for part in full if part[4] is not None]
        counts = sum(part[0] for part in parts), sum(part[1] for part in parts)
        found[key] = _figures(counts, edges, sums if len(sums) == len(full) else None, ends)
    return found


def _figures(counts: tuple[int, int], edges: list[float], sums: list[float] | None, ends: list[float]) -> Figures:
    if not counts[1]:
        return (*counts, None, None, None, None, None, None)
    total = None if sums is None else reduce(operator.add, sums)  # not sum(), which compensates
    average = None if total is None else total / counts[1]
    return (*counts, min(edges), max(edges), total, average, ends[0], ends[-1])
