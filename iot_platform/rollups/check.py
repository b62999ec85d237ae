"""Samples of the rollups computed from measurement by other means than the rollups' own, and compared."""

import itertools
import random
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from psycopg2.extensions import connection as Connection  # noqa: N812

from iot_platform.database import connect
from iot_platform.rollups.buckets import DAY, floor
from iot_platform.settings import Settings

RECENT_SERIES, OLD_SERIES, OLD_DAYS = 50, 10, 10
MOST_MEASUREMENTS: Final = 100_000
"""Of one comparison, so that it ends within SECONDS whatever rate the series have; one series is always compared."""
SECONDS: Final = 60
SHOWN: Final = 20
Sample = list[tuple[int, datetime, datetime]]
"""Series, and days [since, until)."""

_LIMIT: Final = f"SET LOCAL statement_timeout = '{SECONDS}s'; SET LOCAL jit = off"
_SERIES: Final = "SELECT series_id FROM series ORDER BY random() LIMIT %s"
_BOUNDS: Final = """
SELECT (extract(epoch FROM min(range_start)))::float8 FROM timescaledb_information.chunks WHERE hypertable_name = 'measurement'"""
_MEASUREMENTS: Final = """
SELECT coalesce(r.measurements, 0)::bigint
FROM unnest(%(series)s::int[], %(since)s::timestamptz[], %(until)s::timestamptz[]) WITH ORDINALITY i (series_id, since, until, place)
CROSS JOIN LATERAL (
    SELECT sum(h.value_count) AS measurements FROM measurement_1h h
    WHERE h.series_id = i.series_id AND h.bucket >= i.since AND h.bucket < i.until OFFSET 0
) r ORDER BY i.place"""
# One statement, one snapshot: an hour that differs from its measurements has a note in it, or is wrong.
_COMPARE: Final = """
WITH item AS MATERIALIZED (
    SELECT i.series_id, i.since, i.until, h.mark, d.mark AS mark_1h
    FROM unnest(%(series)s::int[], %(since)s::timestamptz[], %(until)s::timestamptz[]) i (series_id, since, until)
    JOIN rollup_marks('measurement', %(series)s::int[]) h USING (series_id)
    JOIN rollup_marks('measurement_1h', %(series)s::int[]) d USING (series_id)
), noted AS MATERIALIZED (
    SELECT DISTINCT n.series_id, n.bucket FROM rollup_change n WHERE n.series_id = ANY (%(series)s)
), scratch AS MATERIALIZED (
    SELECT i.series_id, i.mark, m.* FROM item i CROSS JOIN LATERAL (
        SELECT date_bin('1 hour', m.time, '2000-01-01 00:00+00') AS bucket, count(*) AS value_count, count(m.value) AS numbers,
               min(m.value) AS value_min, max(m.value) AS value_max,
               CASE WHEN count(*) FILTER (WHERE NOT m.value BETWEEN -1e290 AND 1e290) = 0
                   THEN sum(m.value ORDER BY m.time) FILTER (WHERE m.value BETWEEN -1e290 AND 1e290) END AS value_sum,
               (array_agg(m.value ORDER BY m.time) FILTER (WHERE m.value IS NOT NULL))[1] AS value_first,
               (array_agg(m.value ORDER BY m.time DESC) FILTER (WHERE m.value IS NOT NULL))[1] AS value_last
        FROM measurement m WHERE m.series_id = i.series_id AND m.time >= i.since AND m.time < i.until GROUP BY 1
    ) m
), hour AS MATERIALIZED (
    SELECT i.series_id, r.bucket, r.value_count, r.numbers, r.value_min, r.value_max, r.value_sum, r.value_first, r.value_last, i.mark
    FROM item i CROSS JOIN LATERAL (  -- OFFSET 0: series by series; a join computes the open hours of all of them
        SELECT * FROM measurement_1h_named n
        WHERE n.series_id = i.series_id AND n.bucket >= i.since AND n.bucket < i.until OFFSET 0
    ) r
), day AS (
    SELECT i.series_id, r.bucket, r.value_count, r.numbers, r.value_min, r.value_max, r.value_sum, r.value_first, r.value_last
    FROM item i CROSS JOIN LATERAL (
        SELECT * FROM measurement_1d_named n
        WHERE n.series_id = i.series_id AND n.bucket >= i.since AND n.bucket < i.until OFFSET 0
    ) r
    WHERE r.bucket >= i.mark_1h
), of_hours AS (
    SELECT h.series_id, date_trunc('day', h.bucket, 'UTC') AS bucket,
           sum(h.value_count)::bigint AS value_count, sum(h.numbers)::bigint AS numbers,
           min(h.value_min) AS value_min, max(h.value_max) AS value_max,
           CASE WHEN count(*) FILTER (WHERE h.numbers > 0 AND h.value_sum IS NULL) = 0
               THEN sum(h.value_sum ORDER BY h.bucket) END AS value_sum,
           (array_agg(h.value_first ORDER BY h.bucket) FILTER (WHERE h.numbers > 0))[1] AS value_first,
           (array_agg(h.value_last ORDER BY h.bucket DESC) FILTER (WHERE h.numbers > 0))[1] AS value_last
    FROM hour h JOIN item i ON i.series_id = h.series_id AND h.bucket >= i.since AND h.bucket < i.until
    WHERE date_trunc('day', h.bucket, 'UTC') >= i.mark_1h GROUP BY 1, 2
), wrong AS (
    SELECT 'measurement_1h' AS name, series_id, bucket, to_jsonb(r) - 'mark' AS stored, to_jsonb(s) - 'mark' AS computed
    FROM (SELECT * FROM scratch WHERE bucket >= mark) s FULL JOIN (SELECT * FROM hour WHERE bucket >= mark) r USING (series_id, bucket)
    WHERE (s.value_count, s.numbers, s.value_min, s.value_max, s.value_sum, s.value_first, s.value_last)
        IS DISTINCT FROM (r.value_count, r.numbers, r.value_min, r.value_max, r.value_sum, r.value_first, r.value_last)
      AND NOT EXISTS (SELECT FROM noted n WHERE n.series_id = coalesce(s.series_id, r.series_id)
                      AND n.bucket = coalesce(s.bucket, r.bucket))
    UNION ALL
    SELECT 'measurement_1d', series_id, bucket, to_jsonb(r), to_jsonb(s) FROM of_hours s FULL JOIN day r USING (series_id, bucket)
    WHERE (s.value_count, s.numbers, s.value_min, s.value_max, s.value_sum, s.value_first, s.value_last)
        IS DISTINCT FROM (r.value_count, r.numbers, r.value_min, r.value_max, r.value_sum, r.value_first, r.value_last)
      AND NOT EXISTS (SELECT FROM noted n WHERE n.series_id = coalesce(s.series_id, r.series_id)
                      AND date_trunc('day', n.bucket, 'UTC') = coalesce(s.bucket, r.bucket))
)
SELECT (SELECT count(*) FROM hour), (SELECT count(*) FROM wrong),
    (SELECT jsonb_agg(to_jsonb(w) || jsonb_build_object('names', concat_ws('/', s.tenant_id, s.project_id, s.device_id, s.metric)))
     FROM (SELECT * FROM wrong ORDER BY bucket DESC, series_id LIMIT %(shown)s) w LEFT JOIN series s USING (series_id))"""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Hours compared (and the days they belong to), how many hours and days differ, and some of those: name, series_id, names, bucket,
    stored, computed (null: no row)."""

    hours: int
    different: int
    examples: list[dict[str, Any]]


def choose_sample(settings: Settings) -> Sample:
    """The last two days of some series, and some series on random days since the oldest measurement: in random order, as many as hold
    MOST_MEASUREMENTS.

    Raises:
        DatabaseError, psycopg2.Error: the database does not answer.
    """
    with closing(connect(settings, "reader", "rollup-check")) as connection:
        today = floor(datetime.now(UTC), DAY)
        oldest = floor(_oldest(connection) or today, DAY)
        sample = [(series, today - DAY, today + 2 * DAY) for series in _sample(connection, RECENT_SERIES)]
        past = range(max(0, (today - DAY - oldest).days))
        for day in random.sample(past, min(OLD_DAYS, len(past))):
            begin = oldest + timedelta(days=day)
            sample += [(series, begin, begin + DAY) for series in _sample(connection, OLD_SERIES)]
        random.shuffle(sample)
        return _bounded(sample, _measurements(connection, sample))


def compare(settings: Settings, sample: Sample) -> Comparison:
    """Compute the sample anew, in one snapshot.

    Raises:
        DatabaseError, psycopg2.Error: the database does not answer within SECONDS.
    """
    if not sample:
        return Comparison(0, 0, [])
    with closing(connect(settings, "reader", "rollup-check")) as connection, connection.cursor() as cursor:
        cursor.execute(_LIMIT)
        cursor.execute(_COMPARE, {**_columns(sample), "shown": SHOWN})
        row = cursor.fetchone()
    return Comparison(0, 0, []) if row is None else Comparison(int(row[0]), int(row[1]), row[2] or [])


def _columns(sample: Sample) -> dict[str, list[Any]]:
    return {name: [item[place] for item in sample] for place, name in enumerate(("series", "since", "until"))}


def _measurements(connection: Connection, sample: Sample) -> list[int]:
    with connection.cursor() as cursor:
        cursor.execute(_LIMIT)
        cursor.execute(_MEASUREMENTS, _columns(sample))
        return [int(row[0]) for row in cursor.fetchall()]


def _bounded(sample: Sample, measurements: list[int]) -> Sample:
    sums = itertools.accumulate(measurements)
    return [item for place, (item, total) in enumerate(zip(sample, sums, strict=True)) if place == 0 or total <= MOST_MEASUREMENTS]


def _sample(connection: Connection, count: int) -> list[int]:
    with connection.cursor() as cursor:
        cursor.execute(_SERIES, (count,))
        return [int(row[0]) for row in cursor.fetchall()]


def _oldest(connection: Connection) -> datetime | None:
    with connection.cursor() as cursor:
        cursor.execute(_BOUNDS)
        row = cursor.fetchone()
    return None if row is None or row[0] is None else datetime.fromtimestamp(row[0], UTC)
