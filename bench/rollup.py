"""Rollups: rows/s of a first fill and of a rebuild, and milliseconds for one late row among N measurements.

    python -m bench.rollup --rows 2000000 --series 2000 --days 30

Uses the server of IOT_DATABASE_ADMIN_URL (a role that may create databases with TimescaleDB), by default that of the local stack; makes a
database of its own and removes it. On tables (Apache edition) only.
"""

import argparse
import random
import statistics
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta

import psycopg2

from bench.drain import database
from iot_platform.rollups import Rebuild, RollupResult, roll_up
from iot_platform.settings import Settings, get_settings

_SERIES = """
INSERT INTO project (tenant_id, project_id) SELECT 't', 'p' || i FROM generate_series(0, 99) i;
INSERT INTO series (identity, tenant_id, project_id, device_id, metric)
SELECT sha256(i::text::bytea), 't', 'p' || i %% 100, 'd' || i / 4, 'm' || i %% 4 FROM generate_series(1, %(series)s) i"""
_FILL = """
INSERT INTO measurement (time, series_id, value)
SELECT %(start)s + n * %(step)s, s, random() * 100 FROM generate_series(0, %(count)s - 1) n, generate_series(1, %(series)s) s"""
_LATE = """
SELECT pg_advisory_xact_lock_shared(lock_key('rollup-threshold'));
WITH new AS (
    INSERT INTO measurement (time, series_id, value) VALUES (%(time)s, %(series)s, 1) ON CONFLICT DO NOTHING RETURNING time, series_id
)
INSERT INTO rollup_change (bucket, series_id)
SELECT date_trunc('hour', time, 'UTC'), series_id FROM new, rollup_state WHERE time < notes_below"""


def fill(settings: Settings, rows: int, series: int, days: int, now: datetime) -> None:
    """Evenly spread measurements up to now."""
    count = rows // series
    with closing(psycopg2.connect(settings.admin_url)) as connection, connection.cursor() as cursor:
        cursor.execute(_SERIES, {"series": series})
        connection.commit()
        step, start = timedelta(days=days) / count, now - timedelta(days=days)
        for first in range(0, count, 500):
            part = {"start": start + first * step, "step": step, "count": min(500, count - first), "series": series}
            cursor.execute(_FILL, part)
            connection.commit()
        connection.autocommit = True
        cursor.execute("ANALYZE measurement")
        cursor.execute("ANALYZE series")


def late(settings: Settings, series: int, days: int, now: datetime, times: int) -> list[float]:
    """Milliseconds from the commit of one late row to that of its hour and its day, by calls as a run makes them."""
    rng, found = random.Random(1), []
    with closing(psycopg2.connect(settings.admin_url)) as connection, connection.cursor() as cursor:
        for _ in range(times):
            at = now - timedelta(seconds=rng.randrange(7200, days * 86400))
            cursor.execute(_LATE, {"time": at, "series": rng.randrange(1, series + 1)})
            connection.commit()
            started = time.perf_counter()
            cursor.execute("SELECT rollup_refresh(1000)")
            connection.commit()
            found.append((time.perf_counter() - started) * 1000)
    return found


def main() -> None:
    """Fill, roll up, rebuild, and add late rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--series", type=int, default=2_000)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--late", type=int, default=50, help="late rows, one after the other")
    options = parser.parse_args()
    now = datetime.now(UTC)
    with database(get_settings(), "bench_rollup") as settings:
        fill(settings, options.rows, options.series, options.days, now)
        result = RollupResult()
        started = time.perf_counter()
        while not result.complete:
            result = roll_up(settings, 3600)
        seconds = time.perf_counter() - started
        print(f"first fill   {result.rows:,} rows, {result.changed:,} buckets, {seconds:.1f} s: {result.rows / seconds:,.0f} rows/s")
        started = time.perf_counter()
        rows = sum(step.rows for step in Rebuild(settings, now - timedelta(days=options.days), now).steps())
        seconds = time.perf_counter() - started
        print(f"rebuild      {rows:,} rows, {seconds:.1f} s: {rows / seconds:,.0f} rows/s")
        took = late(settings, options.series, options.days, now, options.late)
        print(f"one late row median {statistics.median(took):.1f} ms, worst {max(took):.1f} ms, of {len(took)}, among {options.rows:,}")


if __name__ == "__main__":
    main()
