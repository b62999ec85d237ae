-- What rollups keep. Apache edition: two plain hypertables that the functions of repeatable/rollups.sql keep, below views named
-- measurement_1h and measurement_1d. Community edition: continuous aggregates of these names; TimescaleDB itself notes what changes.
CREATE TABLE rollup_state (
    threshold timestamptz NOT NULL DEFAULT '-infinity',
    threshold_1d timestamptz NOT NULL DEFAULT '-infinity',
    notes_below timestamptz NOT NULL DEFAULT '-infinity',
    fill_end timestamptz,
    fill_1d_end timestamptz,
    note_page bigint NOT NULL DEFAULT 0,
    fill_series integer NOT NULL DEFAULT 0,
    fill_1d_series integer NOT NULL DEFAULT 0,
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    CHECK (threshold_1d <= threshold AND threshold <= notes_below),
    CHECK (fill_end <= notes_below AND fill_1d_end <= threshold)
) WITH (fillfactor = 10);
INSERT INTO rollup_state DEFAULT VALUES;
COMMENT ON TABLE rollup_state IS
    'One row is how far the rollups are stored (there is one row). On Community all moments stay -infinity: TimescaleDB keeps its own.';
COMMENT ON COLUMN rollup_state.threshold IS
    'Hours that begin before it are read from measurement_1h_stored; later ones are computed from measurement when asked for.';
COMMENT ON COLUMN rollup_state.threshold_1d IS
    'Days that begin before it are read from measurement_1d_stored; later ones are computed from measurement_1h.';
COMMENT ON COLUMN rollup_state.notes_below IS
    'Whoever inserts a measurement before it must note the hour in rollup_change, in the same transaction; at or after threshold.';
COMMENT ON COLUMN rollup_state.fill_end IS 'Hours [threshold, fill_end) are being filled; null: none.';
COMMENT ON COLUMN rollup_state.fill_series IS 'Series up to this one have their hours [threshold, fill_end).';
COMMENT ON COLUMN rollup_state.fill_1d_end IS 'Days [threshold_1d, fill_1d_end) are being filled; null: none.';
COMMENT ON COLUMN rollup_state.fill_1d_series IS 'Series up to this one have their days [threshold_1d, fill_1d_end).';
COMMENT ON COLUMN rollup_state.note_page IS
    'Page of rollup_change where the next batch begins to look for notes: earlier ones are mostly dead rows.';

CREATE TABLE rollup_change (
    bucket timestamptz NOT NULL,
    series_id integer NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_insert_scale_factor = 0,
        autovacuum_vacuum_insert_threshold = 1000000);
COMMENT ON TABLE rollup_change IS
    'One row is a note: one transaction inserted or deleted measurements of this series in this stored hour (UTC), which must be '
    'computed anew. Notes repeat.';

DO $$
DECLARE
    name text;
BEGIN
    IF current_setting('timescaledb.license') = 'timescale' THEN
        -- float8 sums and quotients raise on overflow and underflow; a few extreme values must never stop a rollup: no sum beyond ±1e290.
        EXECUTE $sql$
            CREATE MATERIALIZED VIEW measurement_1h WITH (timescaledb.continuous, timescaledb.materialized_only = false) AS
            SELECT time_bucket('1 hour', time) AS bucket, series_id, count(*) AS value_count, count(value) AS numbers,
                min(value) AS value_min, max(value) AS value_max,
                CASE WHEN max(value) <= 1e290 AND min(value) >= -1e290
                    THEN sum(value ORDER BY time) FILTER (WHERE value BETWEEN -1e290 AND 1e290) END AS value_sum,
                CASE WHEN NOT (max(value) <= 1e290 AND min(value) >= -1e290) THEN NULL
                    WHEN abs(sum(value ORDER BY time) FILTER (WHERE value BETWEEN -1e290 AND 1e290)) < count(value) * '5e-324'::float8
                        THEN 0
                    ELSE sum(value ORDER BY time) FILTER (WHERE value BETWEEN -1e290 AND 1e290) / count(value) END AS value_avg,
                first(value, time) FILTER (WHERE value IS NOT NULL) AS value_first,
                last(value, time) FILTER (WHERE value IS NOT NULL) AS value_last
            FROM measurement GROUP BY 1, 2 WITH NO DATA $sql$;
        EXECUTE $sql$
            CREATE MATERIALIZED VIEW measurement_1d WITH (timescaledb.continuous, timescaledb.materialized_only = false) AS
            SELECT time_bucket('1 day', bucket) AS bucket, series_id, sum(value_count)::bigint AS value_count,
                sum(numbers)::bigint AS numbers,
                min(value_min) AS value_min, max(value_max) AS value_max,
                CASE WHEN count(*) FILTER (WHERE numbers > 0 AND value_sum IS NULL) = 0
                    THEN sum(value_sum ORDER BY bucket) END AS value_sum,
                CASE WHEN count(*) FILTER (WHERE numbers > 0 AND value_sum IS NULL) > 0 THEN NULL
                    WHEN abs(sum(value_sum ORDER BY bucket)) < sum(numbers)::float8 * '5e-324'::float8 THEN 0
                    ELSE sum(value_sum ORDER BY bucket) / sum(numbers)::float8 END AS value_avg,
                first(value_first, bucket) FILTER (WHERE numbers > 0) AS value_first,
                last(value_last, bucket) FILTER (WHERE numbers > 0) AS value_last
            FROM measurement_1h GROUP BY 1, 2 WITH NO DATA $sql$;
    ELSE
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
    END IF;
END
$$;
