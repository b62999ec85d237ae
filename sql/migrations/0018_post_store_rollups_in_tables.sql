-- Both editions keep their rollups in tables. A database that Community migrated until now has continuous aggregates: TimescaleDB notes
-- times, not series, so that each late row had the hour of every series computed anew. What they hold moves: hours and days whose source
-- retention removed as they are, all others computed once more. Nobody inserts measurements meanwhile (34 million rows: minutes).
DO $$
DECLARE
    until timestamptz := date_trunc('hour', now() - interval '15 minutes', 'UTC');
    hours_of_all timestamptz;  -- marks of everybody: also those of series of a tenant that is being deleted, which have no name any more
    days_of_all timestamptz;
    name text;
BEGIN
    IF to_regclass('public.measurement_1h_stored') IS NOT NULL THEN
        RETURN;
    END IF;
    IF to_regproc('public.lock_key') IS NOT NULL THEN
        PERFORM pg_advisory_xact_lock(lock_key('maintenance'));
    END IF;
    LOCK TABLE measurement IN SHARE ROW EXCLUSIVE MODE;
    FOREACH name IN ARRAY ARRAY['measurement_1h_stored', 'measurement_1d_stored'] LOOP
        EXECUTE format(
            'CREATE TABLE %I (bucket timestamptz NOT NULL, series_id integer NOT NULL, value_count bigint NOT NULL,'
            ' numbers bigint NOT NULL,'
            ' value_min double precision, value_max double precision, value_sum double precision, value_avg double precision,'
            ' value_first double precision, value_last double precision) WITH (fillfactor = 90)', name);
        PERFORM create_hypertable(name::regclass,
            by_range('bucket', CASE name WHEN 'measurement_1h_stored' THEN INTERVAL '30 days' ELSE INTERVAL '365 days' END),
            create_default_indexes => false);
        EXECUTE format('CREATE UNIQUE INDEX %I ON %I (series_id, bucket)', name || '_series_id_bucket_key', name);
    END LOOP;
    COMMENT ON TABLE measurement_1h_stored IS
        'One row is one hour (UTC) of one series before rollup_state.threshold, as measurement gave it; read it through '
        'measurement_1h.';
    COMMENT ON TABLE measurement_1d_stored IS
        'One row is one day (UTC) of one series before rollup_state.threshold_1d, from its stored hours; read it through '
        'measurement_1d.';

    SELECT coalesce(max(m.removed_before) FILTER (WHERE m.table_name = 'measurement'), '-infinity'),
        coalesce(max(m.removed_before) FILTER (WHERE m.table_name = 'measurement_1h'), '-infinity') INTO hours_of_all, days_of_all
    FROM retention_mark m WHERE m.tenant_id = '' AND m.project_id = '';
    WITH mark AS MATERIALIZED (
        SELECT s.series_id, coalesce(max(m.removed_before), '-infinity') AS hours_kept FROM series s
        LEFT JOIN retention_mark m ON m.table_name = 'measurement' AND m.tenant_id IN ('', s.tenant_id)
            AND m.project_id IN ('', s.project_id)
        GROUP BY 1
    ), computed AS (
        SELECT time_bucket('1 hour', m.time) AS bucket, m.series_id, count(*) AS value_count, count(m.value) AS numbers,
               min(m.value) AS value_min, max(m.value) AS value_max,
               CASE WHEN max(m.value) <= 1e290 AND min(m.value) >= -1e290
                   THEN sum(m.value ORDER BY m.time) FILTER (WHERE m.value BETWEEN -1e290 AND 1e290) END AS value_sum,
               first(m.value, m.time) FILTER (WHERE m.value IS NOT NULL) AS value_first,
               last(m.value, m.time) FILTER (WHERE m.value IS NOT NULL) AS value_last
        FROM measurement m LEFT JOIN mark k USING (series_id)
        WHERE m.time < until AND time_bucket('1 hour', m.time) >= coalesce(k.hours_kept, hours_of_all)
        GROUP BY 1, 2
    )
    INSERT INTO measurement_1h_stored (bucket, series_id, value_count, numbers, value_min, value_max, value_sum, value_avg, value_first,
        value_last)
    SELECT r.bucket, r.series_id, r.value_count, r.numbers, r.value_min, r.value_max, r.value_sum, r.value_avg, r.value_first, r.value_last
    FROM measurement_1h r LEFT JOIN mark k USING (series_id) WHERE r.bucket < until AND r.bucket < coalesce(k.hours_kept, hours_of_all)
    UNION ALL
    SELECT c.bucket, c.series_id, c.value_count, c.numbers, c.value_min, c.value_max, c.value_sum,
           CASE WHEN abs(c.value_sum) < c.numbers * '5e-324'::float8 THEN 0 ELSE c.value_sum / c.numbers END, c.value_first, c.value_last
    FROM computed c;

    WITH mark AS MATERIALIZED (
        SELECT s.series_id, coalesce(max(m.removed_before), '-infinity') AS days_kept FROM series s
        LEFT JOIN retention_mark m ON m.table_name = 'measurement_1h' AND m.tenant_id IN ('', s.tenant_id)
            AND m.project_id IN ('', s.project_id)
        GROUP BY 1
    ), computed AS (
        SELECT time_bucket('1 day', h.bucket) AS bucket, h.series_id, sum(h.value_count)::bigint AS value_count,
               sum(h.numbers)::bigint AS numbers, min(h.value_min) AS value_min, max(h.value_max) AS value_max,
               CASE WHEN count(*) FILTER (WHERE h.numbers > 0 AND h.value_sum IS NULL) = 0
                   THEN sum(h.value_sum ORDER BY h.bucket) END AS value_sum,
               first(h.value_first, h.bucket) FILTER (WHERE h.numbers > 0) AS value_first,
               last(h.value_last, h.bucket) FILTER (WHERE h.numbers > 0) AS value_last
        FROM measurement_1h_stored h LEFT JOIN mark k USING (series_id)
        WHERE h.bucket < date_trunc('day', until, 'UTC') AND time_bucket('1 day', h.bucket) >= coalesce(k.days_kept, days_of_all)
        GROUP BY 1, 2
    )
    INSERT INTO measurement_1d_stored (bucket, series_id, value_count, numbers, value_min, value_max, value_sum, value_avg, value_first,
        value_last)
    SELECT r.bucket, r.series_id, r.value_count, r.numbers, r.value_min, r.value_max, r.value_sum, r.value_avg, r.value_first, r.value_last
    FROM measurement_1d r LEFT JOIN mark k USING (series_id)
    WHERE r.bucket < date_trunc('day', until, 'UTC') AND r.bucket < coalesce(k.days_kept, days_of_all)
    UNION ALL
    SELECT c.bucket, c.series_id, c.value_count, c.numbers, c.value_min, c.value_max, c.value_sum,
           CASE WHEN abs(c.value_sum) < c.numbers * '5e-324'::float8 THEN 0 ELSE c.value_sum / c.numbers END, c.value_first, c.value_last
    FROM computed c;

    DELETE FROM rollup_change;
    UPDATE rollup_state SET threshold = until, threshold_1d = date_trunc('day', until, 'UTC'), notes_below = until, fill_end = NULL,
        fill_1d_end = NULL, fill_series = 0, fill_1d_series = 0
    WHERE EXISTS (SELECT FROM measurement_1h_stored);

    -- What somebody else built on these views stops us.
    DROP VIEW IF EXISTS tenant.measurement_1h, tenant.measurement_1d, measurement_1h_named, measurement_1d_named;
    DROP MATERIALIZED VIEW measurement_1d;
    DROP MATERIALIZED VIEW measurement_1h;
    DELETE FROM schema_migration s WHERE s.name LIKE 'repeatable/%';  -- all of it is applied again: these views, and their rights
END
$$;

COMMENT ON TABLE rollup_state IS 'One row is how far the rollups are stored (there is one row).';
DROP FUNCTION IF EXISTS rollup_storage();
DROP FUNCTION IF EXISTS tenant_deletion_relation(text);
DROP FUNCTION IF EXISTS retention_deletable(text);
