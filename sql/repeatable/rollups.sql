-- Hours and days of measurements: stored rows below a threshold, and rows computed on the spot at and above it. How the stored part is kept
-- exact: docs/rollups.md. Columns may be added at the end only.
-- All buckets are UTC. float8 sums and quotients raise on overflow and underflow, which a few extreme values must never bring about:
-- there is no sum, and no average, where a value is beyond ±1e290.

CREATE OR REPLACE FUNCTION lock_key(name text) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT ('x' || encode(substr(sha256(convert_to('iot-platform:' || name, 'UTF8')), 1, 8), 'hex'))::bit(64)::bigint
$$;
COMMENT ON FUNCTION lock_key(text) IS 'The key of an advisory lock, as iot_platform.database.locks.lock_key has it.';

CREATE OR REPLACE FUNCTION rollup_hours(series integer, since timestamptz, until timestamptz) RETURNS TABLE (
    bucket timestamptz, value_count bigint, numbers bigint, value_min double precision, value_max double precision,
    value_sum double precision, value_avg double precision,
    value_first double precision, value_last double precision)
LANGUAGE sql STABLE BEGIN ATOMIC
    SELECT h.bucket, h.value_count, h.numbers, h.value_min, h.value_max, h.value_sum,
           CASE WHEN abs(h.value_sum) < h.numbers * '5e-324'::double precision THEN 0
               ELSE h.value_sum / h.numbers END, h.value_first, h.value_last
    FROM (
        SELECT time_bucket('1 hour', m.time) AS bucket, count(*) AS value_count, count(m.value) AS numbers, min(m.value) AS value_min,
            max(m.value) AS value_max,
               CASE WHEN max(m.value) <= 1e290 AND min(m.value) >= -1e290
                   THEN sum(m.value ORDER BY m.time) FILTER (WHERE m.value BETWEEN -1e290 AND 1e290) END AS value_sum,
               first(m.value, m.time) FILTER (WHERE m.value IS NOT NULL) AS value_first,
               last(m.value, m.time) FILTER (WHERE m.value IS NOT NULL) AS value_last
        FROM measurement m WHERE m.series_id = rollup_hours.series AND m.time >= rollup_hours.since AND m.time < rollup_hours.until
            GROUP BY 1
    ) h;
END;
COMMENT ON FUNCTION rollup_hours(integer, timestamptz, timestamptz) IS
    'The hours of one series from its measurements in [since, until): what measurement_1h must say of them if both are whole hours.';

-- The views spell out what rollup_hours computes: a function in a view reads with the rights of who asks, who may read only the view.
DO $do$
DECLARE
    hour_figures text := $sql$ count(*) AS value_count, count(m.value) AS numbers, min(m.value) AS value_min, max(m.value) AS value_max,
        CASE WHEN max(m.value) <= 1e290 AND min(m.value) >= -1e290
            THEN sum(m.value ORDER BY m.time) FILTER (WHERE m.value BETWEEN -1e290 AND 1e290) END AS value_sum,
        first(m.value, m.time) FILTER (WHERE m.value IS NOT NULL) AS value_first,
        last(m.value, m.time) FILTER (WHERE m.value IS NOT NULL) AS value_last $sql$;
    day_figures text := $sql$ sum(h.value_count)::bigint AS value_count, sum(h.numbers)::bigint AS numbers, min(h.value_min) AS value_min,
    max(h.value_max) AS value_max,
        CASE WHEN count(*) FILTER (WHERE h.numbers > 0 AND h.value_sum IS NULL) = 0
            THEN sum(h.value_sum ORDER BY h.bucket) END AS value_sum,
        first(h.value_first, h.bucket) FILTER (WHERE h.numbers > 0) AS value_first,
        last(h.value_last, h.bucket) FILTER (WHERE h.numbers > 0) AS value_last $sql$;
    figures text := $sql$ r.value_count, r.numbers, r.value_min, r.value_max, r.value_sum, r.value_avg, r.value_first, r.value_last $sql$;
    computed text := $sql$ r.value_count, r.numbers, r.value_min, r.value_max, r.value_sum,
        CASE WHEN abs(r.value_sum) < r.numbers * '5e-324'::float8 THEN 0
            ELSE r.value_sum / r.numbers END AS value_avg, r.value_first, r.value_last $sql$;
    named text := $sql$ r.bucket, s.tenant_id, s.project_id, s.device_id, s.metric, r.value_count, r.numbers, r.value_min, r.value_max,
    r.value_sum, r.value_avg, r.value_first, r.value_last,
        s.series_id, s.unit $sql$;
BEGIN
    EXECUTE format($sql$
        CREATE OR REPLACE VIEW measurement_1h AS
        SELECT r.bucket, r.series_id, %1$s FROM measurement_1h_stored r WHERE r.bucket < (SELECT threshold FROM rollup_state)
        UNION ALL
        SELECT r.bucket, r.series_id, %2$s FROM (
            SELECT time_bucket('1 hour', m.time) AS bucket, m.series_id, %3$s
            FROM measurement m WHERE m.time >= (SELECT threshold FROM rollup_state) GROUP BY 1, 2
        ) r $sql$, figures, computed, hour_figures);
    EXECUTE format($sql$
        CREATE OR REPLACE VIEW measurement_1d AS
        SELECT r.bucket, r.series_id, %1$s FROM measurement_1d_stored r WHERE r.bucket < (SELECT threshold_1d FROM rollup_state)
        UNION ALL
        SELECT r.bucket, r.series_id, %2$s FROM (
            SELECT time_bucket('1 day', h.bucket) AS bucket, h.series_id, %3$s
            FROM measurement_1h h WHERE h.bucket >= (SELECT threshold_1d FROM rollup_state) GROUP BY 1, 2
        ) r $sql$, figures, computed, day_figures);
    -- By series, because the part that is computed cannot take the condition of a join: it would compute every series.
    EXECUTE format($sql$
        CREATE OR REPLACE VIEW measurement_1h_named AS
        SELECT %4$s FROM rollup_state t CROSS JOIN series s CROSS JOIN LATERAL (
            SELECT r.bucket, %1$s FROM measurement_1h_stored r WHERE r.series_id = s.series_id AND r.bucket < t.threshold
            UNION ALL
            SELECT r.bucket, %2$s FROM (
                SELECT time_bucket('1 hour', m.time) AS bucket, %3$s
                FROM measurement m WHERE m.series_id = s.series_id AND m.time >= t.threshold GROUP BY 1
            ) r
        ) r $sql$, figures, computed, hour_figures, named);
    EXECUTE format($sql$
        CREATE OR REPLACE VIEW measurement_1d_named AS
        SELECT %5$s FROM rollup_state t CROSS JOIN series s CROSS JOIN LATERAL (
            SELECT r.bucket, %1$s FROM measurement_1d_stored r WHERE r.series_id = s.series_id AND r.bucket < t.threshold_1d
            UNION ALL
            SELECT r.bucket, %2$s FROM (
                SELECT time_bucket('1 day', h.bucket) AS bucket, %4$s FROM (
                    SELECT r.bucket, %1$s FROM measurement_1h_stored r
                    WHERE r.series_id = s.series_id AND r.bucket >= t.threshold_1d AND r.bucket < t.threshold
                    UNION ALL
                    SELECT r.bucket, %2$s FROM (
                        SELECT time_bucket('1 hour', m.time) AS bucket, %3$s
                        FROM measurement m WHERE m.series_id = s.series_id AND m.time >= t.threshold GROUP BY 1
                    ) r
                ) h GROUP BY 1
            ) r
        ) r $sql$, figures, computed, hour_figures, day_figures, named);
END
$do$;
COMMENT ON VIEW measurement_1h IS
    'One row is one hour (UTC) of one series: value_count measurements, numbers of them with a number, and of these minimum, maximum, '
    'sum, average, first and last by time.';
COMMENT ON VIEW measurement_1d IS 'One row is one day (UTC) of one series, from its hours; columns as in measurement_1h.';
COMMENT ON VIEW measurement_1h_named IS 'One row is one hour (UTC) of one series, with its names; columns as in measurement_1h.';
COMMENT ON VIEW measurement_1d_named IS 'One row is one day (UTC) of one series, with its names; columns as in measurement_1d.';
