-- How the stored part of the rollups is kept equal to measurement.
-- Every function does one bounded batch in the caller's transaction and holds the lock 'maintenance' until that ends; killed anywhere, the
-- next call goes on. The reasoning about who may run beside whom is in docs/rollups.md. Days last 24 hours whatever the session's time
-- zone.

CREATE OR REPLACE FUNCTION rollup_days(series integer, since timestamptz, until timestamptz) RETURNS TABLE (
    bucket timestamptz, value_count bigint, numbers bigint, value_min double precision, value_max double precision,
    value_sum double precision, value_avg double precision,
    value_first double precision, value_last double precision)
LANGUAGE sql STABLE BEGIN ATOMIC
    SELECT d.bucket, d.value_count, d.numbers, d.value_min, d.value_max, d.value_sum,
           CASE WHEN abs(d.value_sum) < d.numbers * '5e-324'::double precision THEN 0
               ELSE d.value_sum / d.numbers END, d.value_first, d.value_last
    FROM (
        SELECT time_bucket('1 day', h.bucket) AS bucket, sum(h.value_count)::bigint AS value_count, sum(h.numbers)::bigint AS numbers,
               min(h.value_min) AS value_min, max(h.value_max) AS value_max,
               CASE WHEN count(*) FILTER (WHERE h.numbers > 0 AND h.value_sum IS NULL) = 0
                   THEN sum(h.value_sum ORDER BY h.bucket) END AS value_sum,
               first(h.value_first, h.bucket) FILTER (WHERE h.numbers > 0) AS value_first,
               last(h.value_last, h.bucket) FILTER (WHERE h.numbers > 0) AS value_last
        FROM measurement_1h_stored h
        WHERE h.series_id = rollup_days.series AND h.bucket >= rollup_days.since AND h.bucket < rollup_days.until GROUP BY 1
    ) d;
END;
COMMENT ON FUNCTION rollup_days(integer, timestamptz, timestamptz) IS 'The days of one series from its stored hours in [since, until).';

CREATE OR REPLACE FUNCTION rollup_compute(
    unit text, series integer[], since timestamptz[], until timestamptz[], low timestamptz, high timestamptz, OUT rows bigint,
    OUT changed bigint)
LANGUAGE plpgsql AS $$
DECLARE
    stored text := CASE unit WHEN 'hour' THEN 'measurement_1h_stored' ELSE 'measurement_1d_stored' END;
    gone record;
BEGIN
    -- low and high as constants: each plan then knows only the chunks that it needs (the callers switch off ChunkAppend, which would look
    -- for them once more in each of thousands of loops: it took half of the time). OFFSET 0: the stored buckets of each item by the index,
    -- never the whole chunk. What stays as it is is not touched: ON CONFLICT would lock, and so write, it.
    EXECUTE format($sql$
        WITH item AS MATERIALIZED (
            SELECT * FROM unnest($1, $2, $3) i (series_id, since, until)
        ), fresh AS MATERIALIZED (
            SELECT i.series_id, f.* FROM item i CROSS JOIN LATERAL %1$I(i.series_id, i.since, i.until) f WHERE f.bucket >= %3$L
                AND f.bucket < %4$L
        ), old AS MATERIALIZED (
            SELECT o.* FROM item i CROSS JOIN LATERAL (
                SELECT * FROM %2$I s WHERE s.series_id = i.series_id AND s.bucket >= i.since AND s.bucket < i.until AND s.bucket >= %3$L
                    AND s.bucket < %4$L
                OFFSET 0
            ) o
        ), put AS (
            INSERT INTO %2$I AS s (bucket, series_id, value_count, numbers, value_min, value_max, value_sum, value_avg, value_first,
                value_last)
            SELECT f.bucket, f.series_id, f.value_count, f.numbers, f.value_min, f.value_max, f.value_sum, f.value_avg, f.value_first,
                f.value_last
            FROM fresh f LEFT JOIN old o USING (series_id, bucket)
            WHERE (o.value_count, o.numbers, o.value_min, o.value_max, o.value_sum, o.value_avg, o.value_first, o.value_last)
                IS DISTINCT FROM
                (f.value_count, f.numbers, f.value_min, f.value_max, f.value_sum, f.value_avg, f.value_first, f.value_last)
            ON CONFLICT (series_id, bucket) DO UPDATE
                SET value_count = excluded.value_count, numbers = excluded.numbers, value_min = excluded.value_min,
                value_max = excluded.value_max, value_sum = excluded.value_sum, value_avg = excluded.value_avg,
                value_first = excluded.value_first, value_last = excluded.value_last
            RETURNING 1
        ), gone AS (
            SELECT array_agg(o.series_id) AS series, array_agg(o.bucket) AS buckets FROM old o LEFT JOIN fresh f USING (series_id, bucket)
            WHERE f.series_id IS NULL
        )
        SELECT (SELECT coalesce(sum(value_count), 0) FROM fresh)::bigint AS rows, (SELECT count(*) FROM put) AS changed, gone.* FROM gone
        $sql$, CASE unit WHEN 'hour' THEN 'rollup_hours' ELSE 'rollup_days' END, stored, low, high)
    INTO gone USING series, since, until;
    rows := gone.rows; changed := gone.changed + coalesce(cardinality(gone.series), 0);
    IF gone.series IS NOT NULL THEN
        EXECUTE format($sql$
            DELETE FROM %1$I s USING unnest($1, $2) g (series_id, bucket)
            WHERE s.series_id = g.series_id AND s.bucket = g.bucket AND s.bucket >= %2$L AND s.bucket < %3$L
            $sql$, stored, low, high) USING gone.series, gone.buckets;
    END IF;
END
$$;
COMMENT ON FUNCTION rollup_compute(text, integer[], timestamptz[], timestamptz[], timestamptz, timestamptz) IS
    'Make the stored hours or days of series[i] in [since[i], until[i]), all within [low, high), what their source gives; buckets '
    'without source vanish. Returns source rows counted and buckets changed.';

CREATE OR REPLACE FUNCTION rollup_marks(of_table text, of_series integer[]) RETURNS TABLE (series_id integer, mark timestamptz)
LANGUAGE sql STABLE AS $$
    SELECT i.series_id, coalesce(max(m.removed_before), '-infinity')
    FROM (SELECT DISTINCT unnest(of_series) AS series_id) i LEFT JOIN series s USING (series_id)
    LEFT JOIN retention_mark m ON m.table_name = of_table AND m.tenant_id IN ('', s.tenant_id) AND m.project_id IN ('', s.project_id)
    GROUP BY 1
$$;
COMMENT ON FUNCTION rollup_marks(text, integer[]) IS
    'How far retention removed rows of a table, by series: what begins before it cannot be computed again.';

CREATE OR REPLACE FUNCTION rollup_next(of_table text, since timestamptz) RETURNS timestamptz
LANGUAGE sql STABLE AS $$
    SELECT date_trunc('day', min(greatest(range_start, since)), 'UTC') FROM timescaledb_information.chunks
    WHERE hypertable_schema = 'public' AND hypertable_name = of_table AND range_end > since
$$;
COMMENT ON FUNCTION rollup_next(text, timestamptz) IS
    'The first day (UTC), from the day of since, that has a chunk of this hypertable; null if none has.';

CREATE OR REPLACE FUNCTION rollup_refresh(max_notes integer) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp SET jit = off SET "timescaledb.enable_chunk_append" = off
    SET lock_timeout = '10s' AS $$
DECLARE
    state rollup_state;
    part record;
    one record;
    edge tid;
    series integer[] := '{}';
    hours timestamptz[] := '{}';
    notes integer := 0;
    discarded integer := 0;
    buckets integer := 0;
    changed bigint := 0;
    rows bigint := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(lock_key('maintenance'));
    SELECT * INTO STRICT state FROM rollup_state;
    edge := format('(%s,0)', state.note_page)::tid;
    -- From where the last batch ended, then from the beginning: dead rows are not walked over again and again.
    WITH gone AS (
        DELETE FROM rollup_change WHERE ctid = ANY (ARRAY(SELECT ctid FROM rollup_change WHERE ctid >= edge LIMIT max_notes))
        RETURNING ctid, series_id, bucket
    )
    SELECT array_agg(g.series_id) AS series, array_agg(g.bucket) AS hours, count(*)::integer AS notes,
           max((g.ctid::text::point)[0])::bigint AS page INTO part FROM gone g;
    series := coalesce(part.series, '{}'); hours := coalesce(part.hours, '{}'); notes := part.notes;
    IF notes < max_notes THEN
        WITH gone AS (
            DELETE FROM rollup_change WHERE ctid = ANY (ARRAY(SELECT ctid FROM rollup_change WHERE ctid < edge LIMIT max_notes - notes))
            RETURNING ctid, series_id, bucket
        )
        SELECT array_agg(g.series_id) AS series, array_agg(g.bucket) AS hours, count(*)::integer AS notes,
               coalesce(max((g.ctid::text::point)[0])::bigint, 0) AS page INTO part FROM gone g;
        series := series || part.series; hours := hours || part.hours; notes := notes + part.notes;
    END IF;
    IF notes = 0 AND state.note_page = part.page THEN
        RETURN jsonb_build_object('notes', 0, 'discarded', 0, 'buckets', 0, 'changed', 0, 'rows', 0);
    END IF;
    UPDATE rollup_state SET note_page = part.page;

    SELECT coalesce(array_agg(n.series_id), '{}') AS series, coalesce(array_agg(n.bucket), '{}') AS hours,
        coalesce(sum(n.notes), 0) AS notes INTO part
    FROM (SELECT n.series_id, n.bucket, count(*) AS notes FROM unnest(series, hours) n (series_id, bucket) GROUP BY 1, 2) n
    LEFT JOIN rollup_marks('measurement', series) m USING (series_id)
    WHERE n.bucket >= m.mark;
    series := part.series; hours := part.hours; discarded := notes - part.notes; buckets := cardinality(series);
    FOR part IN
        SELECT date_trunc('day', n.bucket, 'UTC') AS day, array_agg(n.series_id ORDER BY n.series_id, n.bucket) AS series,
               array_agg(n.bucket ORDER BY n.series_id, n.bucket) AS since,
               array_agg(n.bucket + interval '1 hour' ORDER BY n.series_id, n.bucket) AS until
        FROM unnest(series, hours) n (series_id, bucket) GROUP BY 1 ORDER BY 1
    LOOP
        SELECT * INTO one FROM rollup_compute('hour', part.series, part.since, part.until, part.day, part.day + interval '24 hours');
        rows := rows + one.rows; changed := changed + one.changed;
    END LOOP;
    SELECT array_agg(d.series_id ORDER BY d.series_id, d.day) AS series, array_agg(d.day ORDER BY d.series_id, d.day) AS since,
           array_agg(d.day + interval '24 hours' ORDER BY d.series_id, d.day) AS until, min(d.day) AS low, max(d.day) AS high INTO part
    FROM (SELECT DISTINCT n.series_id, date_trunc('day', n.bucket, 'UTC') AS day FROM unnest(series, hours) n (series_id, bucket)) d
    JOIN rollup_marks('measurement_1h', series) m USING (series_id)
    WHERE d.day >= m.mark AND d.day + interval '24 hours' <= state.threshold;
    IF part.low IS NOT NULL THEN
        SELECT * INTO one FROM rollup_compute('day', part.series, part.since, part.until, part.low, part.high + interval '24 hours');
        buckets := buckets + cardinality(part.series); changed := changed + one.changed;
    END IF;
    RETURN jsonb_build_object('notes', notes, 'discarded', discarded, 'buckets', buckets, 'changed', changed, 'rows', rows);
END
$$;
COMMENT ON FUNCTION rollup_refresh(integer) IS
    'One batch of at most max_notes notes: their hours are computed anew, then the days of these. Returns notes taken (fewer than '
    'max_notes: none are left), notes discarded because retention removed the measurements, buckets computed and changed, and '
    'measurements read.';

CREATE OR REPLACE FUNCTION rollup_window(of_table text, length interval, low timestamptz, high timestamptz,
    OUT since timestamptz, OUT until timestamptz)
LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN f.day < high THEN greatest(low, f.day) ELSE high END,
           CASE WHEN f.day < high THEN least(high, date_trunc('day', greatest(low, f.day), 'UTC') + length) ELSE high END
    FROM rollup_next(of_table, low) f (day)
$$;
COMMENT ON FUNCTION rollup_window(text, interval, timestamptz, timestamptz) IS
    'The first part of [low, high) to be filled, at most so long and behind what has no chunk of this hypertable; empty, at high, where '
    'none has.';

CREATE OR REPLACE FUNCTION rollup_fill(unit text, since timestamptz, until timestamptz, after_series integer, max_series integer,
    OUT series integer, OUT last_series integer, OUT rows bigint, OUT changed bigint)
LANGUAGE plpgsql AS $$
DECLARE
    ids integer[] := ARRAY(SELECT s.series_id FROM series s WHERE since < until AND s.series_id > after_series ORDER BY 1 LIMIT max_series);
BEGIN
    series := cardinality(ids); last_series := ids[series]; rows := 0; changed := 0;
    IF series > 0 THEN
        SELECT c.rows, c.changed INTO rows, changed
        FROM rollup_compute(unit, ids, array_fill(since, ARRAY[series]), array_fill(until, ARRAY[series]), since, until) c;
    END IF;
END
$$;
COMMENT ON FUNCTION rollup_fill(text, timestamptz, timestamptz, integer, integer) IS
    'Stores hours or days in [since, until) of the next max_series series after after_series. Returns how many series, the last of them, '
    'source rows counted and buckets changed.';

CREATE OR REPLACE FUNCTION rollup_fill_hours(max_series integer) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    state rollup_state;
    part record;
    moved boolean;
BEGIN
    SELECT * INTO STRICT state FROM rollup_state;
    IF state.fill_end IS NULL THEN
        SELECT w.since, w.until, 0 INTO state.threshold, state.fill_end, state.fill_series
        FROM rollup_window('measurement', interval '24 hours', state.threshold, state.notes_below) w;
    END IF;
    SELECT * INTO part FROM rollup_fill('hour', state.threshold, state.fill_end, state.fill_series, max_series);
    moved := part.series < max_series;
    UPDATE rollup_state SET threshold = CASE WHEN moved THEN state.fill_end ELSE state.threshold END,
        fill_end = CASE WHEN NOT moved THEN state.fill_end END, fill_series = CASE WHEN moved THEN 0 ELSE part.last_series END;
    RETURN jsonb_build_object('step', CASE WHEN moved THEN 'moved'
        ELSE 'filled' END, 'unit', 'hour', 'series', part.series, 'rows', part.rows,
        'changed', part.changed);
END
$$;
COMMENT ON FUNCTION rollup_fill_hours(integer) IS
    'One batch of storing hours up to notes_below, a day at a time: max_series series, and the threshold once a day has all of them.';

CREATE OR REPLACE FUNCTION rollup_fill_days(max_series integer) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    state rollup_state;
    part record;
    moved boolean;
BEGIN
    SELECT * INTO STRICT state FROM rollup_state;
    IF state.fill_1d_end IS NULL THEN
        SELECT w.since, w.until, 0 INTO state.threshold_1d, state.fill_1d_end, state.fill_1d_series
        FROM rollup_window('measurement_1h_stored', interval '720 hours', state.threshold_1d, date_trunc('day', state.threshold, 'UTC')) w;
    END IF;
    SELECT * INTO part FROM rollup_fill('day', state.threshold_1d, state.fill_1d_end, state.fill_1d_series, max_series);
    moved := part.series < max_series;
    UPDATE rollup_state SET threshold_1d = CASE WHEN moved THEN state.fill_1d_end ELSE state.threshold_1d END,
        fill_1d_end = CASE WHEN NOT moved THEN state.fill_1d_end END, fill_1d_series = CASE WHEN moved THEN 0 ELSE part.last_series END;
    RETURN jsonb_build_object('step', CASE WHEN moved THEN 'moved' ELSE 'filled' END, 'unit', 'day', 'series', part.series, 'rows', 0,
        'changed', part.changed);
END
$$;
COMMENT ON FUNCTION rollup_fill_days(integer) IS
    'One batch of storing days up to the threshold of the hours, 30 at a time: max_series series, and threshold_1d once they have all of '
    'them.';

CREATE OR REPLACE FUNCTION rollup_advance(max_series integer, wanted timestamptz DEFAULT now() - interval '15 minutes') RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp SET jit = off SET "timescaledb.enable_chunk_append" = off
    SET lock_timeout = '10s' AS $$
DECLARE
    state rollup_state;
BEGIN
    PERFORM pg_advisory_xact_lock(lock_key('maintenance'));
    SELECT * INTO STRICT state FROM rollup_state;
    wanted := date_trunc('hour', least(wanted, now()), 'UTC');
    IF state.notes_below > now() + interval '1 hour' THEN
        -- The clock was ahead. Computing more of the rollups on the spot is always right, and what is noted needlessly does no harm.
        UPDATE rollup_state SET threshold = least(threshold, wanted), threshold_1d = least(threshold_1d, date_trunc('day', wanted, 'UTC')),
            notes_below = wanted, fill_end = NULL, fill_1d_end = NULL, fill_series = 0, fill_1d_series = 0;
        RETURN jsonb_build_object('step', 'lowered', 'series', 0, 'rows', 0, 'changed', 0);
    ELSIF state.threshold < state.notes_below THEN  -- hours first, then days, then the next hour
        RETURN rollup_fill_hours(max_series);
    ELSIF state.threshold_1d < date_trunc('day', state.threshold, 'UTC') THEN
        RETURN rollup_fill_days(max_series);
    ELSIF wanted <= state.notes_below THEN
        RETURN jsonb_build_object('step', 'done', 'series', 0, 'rows', 0, 'changed', 0);
    END IF;
    -- Everything inserted below `wanted` so far is committed once we hold the lock; everything later is noted.
    PERFORM set_config('lock_timeout', '5s', true);
    PERFORM pg_advisory_xact_lock(lock_key('rollup-threshold'));
    UPDATE rollup_state SET notes_below = wanted;
    RETURN jsonb_build_object('step', 'noted', 'series', 0, 'rows', 0, 'changed', 0);
END
$$;
COMMENT ON FUNCTION rollup_advance(integer, timestamptz) IS
    'One batch that stores hours and days up to `wanted` (cut to the hour) for at most max_series series, and moves the thresholds where '
    'a window is complete. Returns the step; done: nothing is left.';

CREATE OR REPLACE FUNCTION rollup_lower(since timestamptz) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp SET lock_timeout = '5s' AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(lock_key('maintenance'));
    -- Where retention has removed the source of any hour, the stored one is all that is left of it.
    IF EXISTS (SELECT FROM retention_mark m WHERE m.table_name IN ('measurement', 'measurement_1h') AND m.removed_before > since)
        OR NOT EXISTS (SELECT FROM rollup_state s WHERE s.notes_below > date_trunc('hour', since, 'UTC'))
    THEN
        RETURN false;
    END IF;
    PERFORM pg_advisory_xact_lock(lock_key('rollup-threshold'));
    UPDATE rollup_state SET threshold = least(threshold, date_trunc('hour', since, 'UTC')),
        threshold_1d = least(threshold_1d, date_trunc('day', since, 'UTC')),
        notes_below = date_trunc('hour', since, 'UTC'), fill_end = NULL, fill_1d_end = NULL, fill_series = 0, fill_1d_series = 0;
    RETURN true;
END
$$;
COMMENT ON FUNCTION rollup_lower(timestamptz) IS
    'Takes the thresholds back to an hour: for whoever is about to write millions of measurements after it, which would all be noted. '
    'What is after them is computed when asked for, and stored anew by the next runs. Whether it did; not where retention has removed '
    'measurements.';

CREATE OR REPLACE FUNCTION rollup_rebuild(since timestamptz, until timestamptz, after_series integer, max_series integer,
    tenant text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp SET jit = off SET "timescaledb.enable_chunk_append" = off
    SET lock_timeout = '10s' AS $$
DECLARE
    state rollup_state;
    low timestamptz := date_trunc('hour', since, 'UTC');
    high timestamptz;
    day timestamptz := date_trunc('day', since, 'UTC');
    ids integer[];
    part record;
    one record;
    rows bigint := 0;
    changed bigint := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(lock_key('maintenance'));
    SELECT * INTO STRICT state FROM rollup_state;
    high := least(until, state.threshold, day + interval '24 hours');
    ids := ARRAY(
        SELECT s.series_id FROM series s WHERE s.series_id > after_series AND (tenant IS NULL OR s.tenant_id = tenant) AND low < high
        ORDER BY 1 LIMIT max_series);
    SELECT count(*) FILTER (WHERE i.since > low)::integer AS kept,
           array_agg(i.series_id) FILTER (WHERE i.since < high) AS hour_series,
           array_agg(i.since) FILTER (WHERE i.since < high) AS hour_since,
           array_agg(high) FILTER (WHERE i.since < high) AS hour_until, array_agg(i.series_id) FILTER (WHERE i.has_day) AS day_series,
           array_agg(day) FILTER (WHERE i.has_day) AS day_since, array_agg(day + interval '24 hours') FILTER (WHERE i.has_day) AS day_until
    INTO part
    FROM (
        SELECT series_id, greatest(low, date_trunc('hour', h.mark + interval '1 hour' - interval '1 microsecond', 'UTC')) AS since,
               day >= d.mark AND day + interval '24 hours' <= state.threshold AS has_day
        FROM rollup_marks('measurement', ids) h JOIN rollup_marks('measurement_1h', ids) d USING (series_id) ORDER BY 1
    ) i;
    IF part.hour_series IS NOT NULL THEN
        SELECT * INTO one FROM rollup_compute('hour', part.hour_series, part.hour_since, part.hour_until, low, high);
        rows := one.rows; changed := one.changed;
    END IF;
    IF part.day_series IS NOT NULL THEN
        SELECT * INTO one FROM rollup_compute('day', part.day_series, part.day_since, part.day_until, day, day + interval '24 hours');
        changed := changed + one.changed;
    END IF;
    RETURN jsonb_build_object('series', cardinality(ids), 'last_series', ids[cardinality(ids)], 'kept_series', part.kept, 'rows', rows,
        'changed', changed, 'until', high);
END
$$;
COMMENT ON FUNCTION rollup_rebuild(timestamptz, timestamptz, integer, integer, text) IS
    'One batch of computing stored hours in [since, until) anew, within the day (UTC) of since, and that day: the next max_series series '
    'after after_series, of a tenant or of all (null). Hours that begin before the series'' retention mark stay (kept_series: of how '
    'many). Returns series (fewer than max_series: the day is complete), the last one, measurements read and buckets changed.';

REVOKE EXECUTE ON FUNCTION rollup_compute(text, integer[], timestamptz[], timestamptz[], timestamptz, timestamptz),
    rollup_fill(text, timestamptz, timestamptz, integer, integer), rollup_fill_hours(integer), rollup_fill_days(integer),
    rollup_refresh(integer), rollup_advance(integer, timestamptz), rollup_lower(timestamptz),
    rollup_rebuild(timestamptz, timestamptz, integer, integer, text) FROM PUBLIC;
