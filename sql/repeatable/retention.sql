-- Retention: what is beyond its policy, why it may not go yet, and removing it chunk by chunk or in bounded batches of rows. Whoever
-- removes anything sets retention_mark in the same transaction, and leaves what the audit needs (audit_views.sql, audit_sums.sql).
-- Rollups (rollups.sql) are created after this file.
SET LOCAL check_function_bodies = off;

CREATE OR REPLACE FUNCTION retention_tables() RETURNS TABLE (place integer, table_name text, relation regclass, time_column name, owner text)
LANGUAGE sql STABLE AS $$
    SELECT t.place, t.table_name, coalesce(to_regclass(t.table_name || '_stored'), to_regclass(t.table_name)), t.time_column::name, t.owner
    FROM (VALUES
        (1, 'message', 'received_at', 'source'), (2, 'measurement', 'time', 'series'), (3, 'measurement_1h', 'bucket', 'series'),
        (4, 'measurement_1d', 'bucket', 'series'), (5, 'quarantine', 'received_at', 'names'), (6, 'ledger', 'committed_at', 'nobody'),
        (7, 'accounting_1h', 'hour', 'nobody'), (8, 'quality_result', 'evaluated_at', 'names'), (9, 'quality_incident', 'closed_at', 'names')
    ) t (place, table_name, time_column, owner)
    WHERE to_regclass(t.table_name) IS NOT NULL
$$;
COMMENT ON FUNCTION retention_tables() IS
    'One row is one table that retention keeps short: where its rows are, the column that tells their age, and how they name their project (by source, series, names, or not).';

CREATE OR REPLACE FUNCTION day_before(moment timestamptz) RETURNS timestamptz
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN isfinite(moment) THEN moment - interval '24 hours' ELSE moment END
$$;
COMMENT ON FUNCTION day_before(timestamptz) IS 'A day earlier; TimescaleDB''s planner fails on infinity minus an interval.';

CREATE OR REPLACE FUNCTION retention_cutoff(table_name text, tenant text DEFAULT '', project text DEFAULT '', at timestamptz DEFAULT now()) RETURNS timestamptz
LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN isfinite(c.moment) THEN date_trunc('hour', c.moment, 'UTC') ELSE '-infinity' END FROM (
        SELECT coalesce(max(least(at, now()) - p.keep), '-infinity') AS moment FROM retention_policy p
        WHERE p.table_name = CASE retention_cutoff.table_name WHEN 'accounting_1h' THEN 'ledger' ELSE retention_cutoff.table_name END
          AND (p.tenant_id, p.project_id) IN (('', ''), (tenant, ''), (tenant, project))
    ) c
$$;
COMMENT ON FUNCTION retention_cutoff(text, text, text, timestamptz) IS
    'Rows before it may go: now - keep, down to the whole hour (UTC), so that no hour of accounting_1h or of a rollup is cut in two.';

CREATE OR REPLACE FUNCTION retention_problems() RETURNS TABLE (table_name text, tenant_id text, project_id text, problem text)
LANGUAGE sql STABLE AS $$
    WITH scope AS (
        SELECT DISTINCT p.tenant_id, p.project_id FROM retention_policy p UNION SELECT '', ''
    ), effective AS (
        SELECT s.tenant_id, s.project_id, r.table_name, (SELECT max(now() - p.keep) FROM retention_policy p
            WHERE p.table_name = r.table_name AND (p.tenant_id, p.project_id) IN (('', ''), (s.tenant_id, ''), (s.tenant_id, s.project_id))) AS moment
        FROM scope s CROSS JOIN (VALUES ('message'), ('measurement'), ('measurement_1h'), ('measurement_1d'), ('quarantine'), ('ledger')) r (table_name)
    )
    SELECT r.source, s.tenant_id, s.project_id, r.kept || ' (' || age_text(k.moment) || ') would be kept shorter than its source '
        || r.source || ' (' || age_text(s.moment) || ')'
        || CASE WHEN s.project_id <> '' THEN ' of project ' || s.tenant_id || '/' || s.project_id
                WHEN s.tenant_id <> '' THEN ' of tenant ' || s.tenant_id ELSE '' END
    FROM (VALUES ('measurement', 'measurement_1h'), ('measurement_1h', 'measurement_1d'), ('message', 'ledger'), ('quarantine', 'ledger'),
                 ('measurement', 'ledger')) r (source, kept)
    JOIN effective s ON s.table_name = r.source
    JOIN effective k ON k.table_name = r.kept AND k.tenant_id = s.tenant_id AND k.project_id = s.project_id
    WHERE k.moment > s.moment AND (r.kept <> 'ledger' OR s.tenant_id = '')
$$;
COMMENT ON FUNCTION retention_problems() IS
    'Policies that contradict each other: rollups kept shorter than what they are made of, the ledger shorter than what it accounts for. None of both is removed then.';

CREATE OR REPLACE FUNCTION retention_chunks(table_name text) RETURNS TABLE (chunk regclass, range_start timestamptz, range_end timestamptz, bytes bigint, compressed boolean)
LANGUAGE sql STABLE AS $$
    SELECT format('%I.%I', c.chunk_schema, c.chunk_name)::regclass, c.range_start, c.range_end, s.total_bytes, c.is_compressed
    FROM retention_tables() t
    JOIN pg_class k ON k.oid = t.relation
    LEFT JOIN timescaledb_information.continuous_aggregates a ON a.view_name = k.relname AND a.view_schema = k.relnamespace::regnamespace::text
    JOIN timescaledb_information.chunks c ON c.hypertable_name = coalesce(a.materialization_hypertable_name, k.relname)
        AND c.hypertable_schema = coalesce(a.materialization_hypertable_schema, k.relnamespace::regnamespace::text)
    CROSS JOIN LATERAL (
        SELECT pg_total_relation_size(format('%I.%I', c.chunk_schema, c.chunk_name)::regclass) AS total_bytes
    ) s
    WHERE t.table_name = retention_chunks.table_name
    UNION ALL
    SELECT t.relation, '-infinity', 'infinity', pg_total_relation_size(t.relation), false
    FROM retention_tables() t JOIN pg_class k ON k.oid = t.relation
    WHERE t.table_name = retention_chunks.table_name AND k.relkind = 'r' AND NOT EXISTS (
        SELECT FROM timescaledb_information.hypertables h WHERE h.hypertable_name = k.relname AND h.hypertable_schema = k.relnamespace::regnamespace::text)
$$;
COMMENT ON FUNCTION retention_chunks(text) IS
    'One row is one chunk of a table of retention_tables, with its size on disk; a table without chunks is one that reaches from infinity to infinity.';

CREATE OR REPLACE FUNCTION retention_mark_of(table_name text, tenant text, project text) RETURNS timestamptz
LANGUAGE sql STABLE AS $$
    SELECT coalesce(max(m.removed_before), '-infinity') FROM retention_mark m
    WHERE m.table_name = retention_mark_of.table_name AND (m.tenant_id, m.project_id) IN (('', ''), (tenant, ''), (tenant, project))
$$;
COMMENT ON FUNCTION retention_mark_of(text, text, text) IS 'Rows before it are gone, fully or partly, by the policies of everybody, this tenant or this project.';

-- Reasons against removing rows in [span_from, span_to) of one table, of everybody or of one tenant or project; none: it may go.
CREATE OR REPLACE FUNCTION retention_refusals(table_name text, tenant text, project text, span_from timestamptz, span_to timestamptz)
RETURNS SETOF text
LANGUAGE plpgsql STABLE SET jit = off AS $$
DECLARE
    begins timestamptz := greatest(span_from, retention_mark_of(retention_refusals.table_name, tenant, project));
    first_hour timestamptz;
BEGIN
    RETURN QUERY SELECT p.problem FROM retention_problems() p
        WHERE p.table_name = retention_refusals.table_name AND p.tenant_id IN ('', tenant) AND p.project_id IN ('', project);
    IF begins >= span_to THEN
        RETURN;  -- late rows behind the mark: nothing was ever made of them that could be incomplete
    END IF;
    first_hour := CASE WHEN isfinite(begins) THEN date_trunc('hour', begins + interval '1 hour - 1 microsecond', 'UTC') ELSE begins END;
    IF retention_refusals.table_name IN ('message', 'quarantine') THEN
        RETURN QUERY
        SELECT 'tenant ' || coalesce(nullif(h.tenant_id, ''), '–') || ' project ' || coalesce(nullif(h.project_id, ''), '–') || ' hour '
            || to_char(h.hour AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI"Z"') || ' is unaccounted: ' || h.problem
        FROM audit_hours(tstzmultirange(tstzrange(first_hour, span_to)), '-infinity', nullif(tenant, ''), nullif(project, '')) h
        WHERE first_hour < span_to AND h.problem IS NOT NULL ORDER BY h.hour LIMIT 20;
        IF tenant = '' AND audit_horizon() < span_to THEN
            RETURN QUERY
            SELECT 'a batch is unaccounted: ' || o.problem FROM (
                SELECT min(l.committed_at) AS since, max(l.committed_at) + interval '1 microsecond' AS until FROM ledger l
                WHERE l.kind = 'drain' AND l.committed_at >= day_before(begins) AND l.first_received_at < span_to AND l.last_received_at >= begins
            ) b CROSS JOIN LATERAL audit_offsets(b.since, b.until) o
            WHERE b.since IS NOT NULL AND o.problem IS NOT NULL LIMIT 20;
        END IF;
    ELSIF retention_refusals.table_name IN ('measurement', 'measurement_1h') THEN
        RETURN QUERY SELECT * FROM retention_unstored(retention_refusals.table_name, tenant, project, begins, span_to);
        IF NOT FOUND AND retention_refusals.table_name = 'measurement' AND first_hour < span_to THEN
            RETURN QUERY SELECT * FROM retention_uneven(tenant, project, first_hour, date_trunc('hour', span_to, 'UTC'));
        END IF;
    ELSIF retention_refusals.table_name = 'ledger' THEN
        RETURN QUERY SELECT 'the ledger has a gap: ' || r.problem FROM audit_ranges(span_from, span_to) r LIMIT 20;
        RETURN QUERY SELECT 'rows of ' || t.table_name || ' of that time are still there' FROM retention_tables() t
            WHERE t.table_name IN ('message', 'quarantine')
              AND retention_mark_of(t.table_name, '', '') < span_to
              AND EXISTS (SELECT FROM retention_chunks(t.table_name) c WHERE c.range_start < span_to);
    END IF;
END
$$;
COMMENT ON FUNCTION retention_refusals(text, text, text, timestamptz, timestamptz) IS
    'Reasons why rows of a time span may not be removed yet: not completely rolled up, a batch unaccounted, policies that contradict each other. None: they may.';

CREATE OR REPLACE FUNCTION retention_unstored(table_name text, tenant text, project text, span_from timestamptz, span_to timestamptz) RETURNS SETOF text
LANGUAGE sql STABLE AS $$
    WITH kept AS (
        SELECT CASE table_name WHEN 'measurement' THEN 'measurement_1h' ELSE 'measurement_1d' END AS name,
               CASE table_name WHEN 'measurement' THEN threshold ELSE threshold_1d END AS stored_before FROM rollup_state
    )
    SELECT k.name || ' is not complete: it is stored before ' || CASE WHEN isfinite(k.stored_before)
        THEN to_char(k.stored_before AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI"Z"') ELSE 'no hour yet' END
    FROM kept k WHERE to_regclass('measurement_1h_stored') IS NOT NULL AND k.stored_before < span_to
    UNION ALL
    SELECT k.name || ' is not complete: ' || n.notes || ' notes of changed hours wait, the first of '
        || to_char(n.first AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI"Z"')
    FROM kept k CROSS JOIN (
        SELECT count(*) AS notes, min(n.bucket) AS first FROM rollup_change n
        WHERE n.bucket > CASE WHEN isfinite(span_from) THEN span_from - interval '1 hour' ELSE span_from END AND n.bucket < span_to
          AND n.bucket >= retention_mark_of('measurement', tenant, project)
          AND (tenant = '' OR n.series_id IN (SELECT s.series_id FROM series s WHERE s.tenant_id = tenant AND project IN ('', s.project_id)))
    ) n WHERE n.notes > 0
$$;
COMMENT ON FUNCTION retention_unstored(text, text, text, timestamptz, timestamptz) IS
    'Why the rollup of a table''s rows in a time span is not complete: not stored yet, or notes of changes that it has not taken.';

CREATE OR REPLACE FUNCTION retention_uneven(tenant text, project text, span_from timestamptz, span_to timestamptz) RETURNS SETOF text
LANGUAGE sql STABLE AS $$
    SELECT 'tenant ' || s.tenant_id || ' project ' || s.project_id || ' is unaccounted: ' || coalesce(sum(m.rows), 0) || ' measurements stored, '
        || coalesce(sum(r.rows), 0) || ' in measurement_1h'
    FROM (SELECT series_id, count(*) AS rows FROM measurement WHERE time >= span_from AND time < span_to GROUP BY 1) m
    FULL JOIN (SELECT series_id, sum(count)::bigint AS rows FROM measurement_1h WHERE bucket >= span_from AND bucket < span_to GROUP BY 1) r USING (series_id)
    JOIN series s USING (series_id)  -- without the series of a tenant that is being deleted
    WHERE m.rows IS DISTINCT FROM r.rows AND (tenant = '' OR s.tenant_id = tenant AND project IN ('', s.project_id))
      AND NOT EXISTS (SELECT FROM retention_mark k WHERE k.table_name = 'measurement' AND k.removed_before > span_from
          AND (k.tenant_id, k.project_id) IN ((s.tenant_id, ''), (s.tenant_id, s.project_id)))
      AND NOT EXISTS (SELECT FROM retention_mark k WHERE k.table_name = 'measurement_1h' AND k.removed_before > span_from
          AND (k.tenant_id, k.project_id) IN (('', ''), (s.tenant_id, ''), (s.tenant_id, s.project_id)))
    GROUP BY s.tenant_id, s.project_id ORDER BY s.tenant_id, s.project_id LIMIT 20
$$;
COMMENT ON FUNCTION retention_uneven(text, text, timestamptz, timestamptz) IS
    'Projects whose measurements of some hours are not as many as their rollup says: one of the two lost or gained rows.';

CREATE OR REPLACE FUNCTION age_text(moment timestamptz) RETURNS text
LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN NOT isfinite(moment) THEN 'for ever'
        WHEN now() - moment >= interval '2 days' THEN extract(day FROM now() - moment) || ' days'
        ELSE round(extract(epoch FROM now() - moment) / 3600) || ' hours' END
$$;
COMMENT ON FUNCTION age_text(timestamptz) IS 'How long ago a moment is, in days, or in hours where that is less than two days.';

-- What would go: whole chunks, and the rows of each policy that are older than its cutoff in chunks that stay.
CREATE OR REPLACE FUNCTION retention_plan(at timestamptz DEFAULT now(), counted boolean DEFAULT true) RETURNS TABLE (
    table_name text, tenant_id text, project_id text, chunk regclass, range_from timestamptz, range_to timestamptz,
    rows bigint, bytes bigint, newest timestamptz, refused text[])
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp SET jit = off AS $$
#variable_conflict use_column
DECLARE
    item record;
    stopped text[] := '{}';
BEGIN
    FOR item IN
        SELECT t.place, t.table_name, t.relation, t.time_column, t.owner, s.tenant_id, s.project_id, c.chunk, c.range_start AS range_from,
               least(c.range_end, s.cutoff) AS range_to, c.bytes, s.tenant_id = '' AND c.range_end <= s.cutoff AS whole
        FROM retention_tables() t
        JOIN LATERAL (
            SELECT p.tenant_id, p.project_id, retention_cutoff(t.table_name, p.tenant_id, p.project_id, at) AS cutoff FROM retention_policy p
            WHERE p.table_name = t.table_name
        ) s ON true
        JOIN LATERAL retention_chunks(t.table_name) c ON c.range_start < s.cutoff
        WHERE (s.tenant_id = '' AND c.range_end <= s.cutoff)
           OR (t.table_name <> 'ledger' AND NOT c.compressed AND retention_deletable(t.table_name)
               AND (s.tenant_id = '' OR c.range_end > retention_cutoff(t.table_name, '', '', at)))
        ORDER BY t.place, s.tenant_id, s.project_id, c.range_start
    LOOP
        table_name := item.table_name; tenant_id := item.tenant_id; project_id := item.project_id;
        chunk := CASE WHEN item.whole THEN item.chunk END;
        range_from := item.range_from; range_to := item.range_to;
        bytes := CASE WHEN item.whole THEN item.bytes ELSE 0 END;
        rows := NULL; newest := NULL; refused := '{}';
        IF range_from = '-infinity' THEN
            EXECUTE format('SELECT min(%I) FROM %s', item.time_column, item.chunk) INTO range_from;
            CONTINUE WHEN range_from IS NULL OR range_from >= range_to;
        END IF;
        IF counted THEN
            EXECUTE format('SELECT count(*), max(%1$I) FROM %2$s WHERE %1$I >= $1 AND %1$I < $2 AND %3$s', item.time_column, item.chunk, retention_filter(item.owner))
                INTO rows, newest USING range_from, range_to, tenant_id, project_id;
            CONTINUE WHEN rows = 0 AND chunk IS NULL;
            IF item.table_name || '/' || item.tenant_id || '/' || item.project_id = ANY (stopped) THEN
                refused := ARRAY['an older part of it was refused'];
            ELSE
                refused := ARRAY(SELECT r FROM retention_refusals(item.table_name, tenant_id, project_id, range_from, range_to) r);
            END IF;
            IF refused <> '{}' THEN
                stopped := stopped || (item.table_name || '/' || item.tenant_id || '/' || item.project_id);
            END IF;
        END IF;
        RETURN NEXT;
    END LOOP;
    table_name := 'accounting_1h'; tenant_id := ''; project_id := ''; chunk := NULL; bytes := 0; refused := '{}';
    SELECT min(a.hour), max(k.moment), CASE WHEN counted THEN count(*) END, max(a.hour) INTO range_from, range_to, rows, newest
    FROM (
        SELECT greatest(retention_mark_of('ledger', '', ''), max(c.range_end)) AS moment
        FROM retention_chunks('ledger') c WHERE c.range_end <= retention_cutoff('ledger', '', '', at)
    ) k JOIN accounting_1h a ON a.hour < date_trunc('hour', k.moment, 'UTC') WHERE isfinite(k.moment);
    IF range_from IS NOT NULL THEN
        RETURN NEXT;
    END IF;
END
$$;
COMMENT ON FUNCTION retention_plan(timestamptz, boolean) IS
    'One row is one chunk that would be dropped whole (chunk names it), or the old rows of one policy in one chunk that stays; refused: why not. Without counted, only where to look.';

CREATE OR REPLACE FUNCTION retention_deletable(table_name text) RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT k.relkind <> 'v' FROM retention_tables() t JOIN pg_class k ON k.oid = t.relation WHERE t.table_name = retention_deletable.table_name
$$;
COMMENT ON FUNCTION retention_deletable(text) IS 'Whether single rows can be deleted: not from a continuous aggregate.';

CREATE OR REPLACE FUNCTION retention_filter(owner text) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE owner
        WHEN 'source' THEN '($3 = '''' OR source_id = ANY (ARRAY(SELECT s.source_id FROM source s WHERE s.tenant_id = $3 AND ($4 = '''' OR s.project_id = $4))))'
        WHEN 'series' THEN '($3 = '''' OR series_id = ANY (ARRAY(SELECT s.series_id FROM series s WHERE s.tenant_id = $3 AND ($4 = '''' OR s.project_id = $4))))'
        WHEN 'names' THEN '($3 = '''' OR tenant_id = $3 AND ($4 = '''' OR project_id = $4))'
        ELSE '($3 = '''' AND $4 = '''')' END
$$;
COMMENT ON FUNCTION retention_filter(text) IS 'Condition for the rows of tenant $3 and project $4 (empty: of everybody) in a table of retention_tables.';

-- Before rows of message or quarantine go: what the audit must know. `gone` is a query for them; how many, and the newest, comes back.
CREATE OR REPLACE FUNCTION retention_note_records(gone text, quarantined boolean, horizon timestamptz, span_from timestamptz, span_to timestamptz,
    tenant text, project text, OUT rows bigint, OUT newest timestamptz)
LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format($sql$
        WITH gone AS (%s),
        edge AS MATERIALIZED (  -- batches across the horizon: what they lose is named, so that the rest of them can still be proved
            SELECT kafka_partition, range_agg(int8range(from_offset, to_offset)) AS ranges FROM ledger
            WHERE kind = 'drain' AND committed_at >= day_before($5) AND first_received_at < $5 AND last_received_at >= $5 GROUP BY 1
        ), named AS (
            INSERT INTO removed_record (received_at, kafka_offset, sequence, kafka_partition, connection_id, marked, quarantined)
            SELECT g.received_at, g.kafka_offset, g.sequence, g.kafka_partition, g.connection_id, g.duplicate_of IS NOT NULL, $6
            FROM gone g LEFT JOIN edge e USING (kafka_partition) WHERE g.received_at >= $5 OR e.ranges @> g.kafka_offset
        ), passed AS (
            INSERT INTO mqtt_connection_removed AS r (connection_id, last_sequence)
            SELECT g.connection_id, max(g.sequence) FROM gone g WHERE g.connection_id IS NOT NULL AND g.received_at < $5 GROUP BY 1 ORDER BY 1
            ON CONFLICT (connection_id) DO UPDATE SET last_sequence = excluded.last_sequence WHERE excluded.last_sequence > r.last_sequence
        )
        SELECT count(*), max(received_at) FROM gone $sql$, gone)
    INTO rows, newest USING span_from, span_to, tenant, project, horizon, quarantined;
END
$$;
COMMENT ON FUNCTION retention_note_records(text, boolean, timestamptz, timestamptz, timestamptz, text, text) IS
    'Removes or reads the records of a query, and notes in removed_record and mqtt_connection_removed what the audit still needs of them.';

CREATE OR REPLACE FUNCTION retention_begin() RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('lock_timeout', '10s', true);
    PERFORM pg_advisory_xact_lock(lock_key('maintenance'));
END
$$;
COMMENT ON FUNCTION retention_begin() IS 'The lock that every transaction of maintenance takes first: they never run at once. Waits 10 s at most.';

CREATE OR REPLACE FUNCTION retention_fence() RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('lock_timeout', '5s', true);
    PERFORM pg_advisory_xact_lock(lock_key('rollup-threshold'));
END
$$;
COMMENT ON FUNCTION retention_fence() IS
    'Until the end of the transaction nobody else inserts measurements, and nobody''s inserted ones are uncommitted. Waits 5 s at most: those who insert wait behind it.';

CREATE OR REPLACE FUNCTION retention_raise_mark(table_name text, tenant text, project text, moment timestamptz) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO retention_mark AS m (table_name, tenant_id, project_id, removed_before) VALUES (table_name, tenant, project, moment)
    ON CONFLICT ON CONSTRAINT retention_mark_pkey DO UPDATE SET removed_before = excluded.removed_before WHERE excluded.removed_before > m.removed_before
$$;
COMMENT ON FUNCTION retention_raise_mark(text, text, text, timestamptz) IS 'Moves a mark of retention forward, never back.';

CREATE OR REPLACE FUNCTION retention_write_down(table_name text, tenant text, project text, range_from timestamptz, range_to timestamptz, newest timestamptz,
    rows bigint, bytes bigint, chunks integer) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO retention_removed AS r (table_name, tenant_id, project_id, range_from, range_to, newest, rows, bytes, chunks)
    SELECT table_name, tenant, project, range_from, range_to, newest, rows, bytes, chunks WHERE rows > 0 OR chunks > 0
    ON CONFLICT ON CONSTRAINT retention_removed_pkey DO UPDATE SET range_to = greatest(r.range_to, excluded.range_to), newest = greatest(r.newest, excluded.newest),
        rows = r.rows + excluded.rows, bytes = r.bytes + excluded.bytes, chunks = r.chunks + excluded.chunks, removed_at = excluded.removed_at
$$;
COMMENT ON FUNCTION retention_write_down(text, text, text, timestamptz, timestamptz, timestamptz, bigint, bigint, integer) IS 'Adds to retention_removed.';

CREATE OR REPLACE FUNCTION retention_add_measurements(counts jsonb) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO retention_sum AS r (tenant_id, project_id, measurements)
    SELECT s.tenant_id, s.project_id, sum(c.value::bigint) FROM jsonb_each_text(counts) c JOIN series s ON s.series_id = c.key::integer
    GROUP BY 1, 2 ORDER BY 1, 2
    ON CONFLICT (tenant_id, project_id) DO UPDATE SET measurements = r.measurements + excluded.measurements
$$;
COMMENT ON FUNCTION retention_add_measurements(jsonb) IS 'Adds removed measurements, counted by series, to retention_sum.';

CREATE OR REPLACE FUNCTION retention_remove_chunk(table_name text, chunk regclass, at timestamptz DEFAULT now()) RETURNS TABLE (
    rows bigint, bytes bigint, newest timestamptz, refused text[])
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp SET jit = off AS $$
#variable_conflict use_column
DECLARE
    kept retention_removed%ROWTYPE;
    place record;
    counts jsonb;
    dropped bigint;
BEGIN
    PERFORM retention_begin();
    SELECT t.relation, t.time_column, c.range_start, c.range_end, c.bytes INTO place
    FROM retention_tables() t CROSS JOIN LATERAL retention_chunks(t.table_name) c
    WHERE t.table_name = retention_remove_chunk.table_name AND c.chunk = retention_remove_chunk.chunk;
    IF NOT FOUND THEN
        RETURN;  -- somebody else was faster
    ELSIF place.range_end > retention_cutoff(retention_remove_chunk.table_name, '', '', at) THEN
        RAISE EXCEPTION 'chunk % of % reaches to %, which its policy keeps', chunk, retention_remove_chunk.table_name, place.range_end;
    ELSIF EXISTS (SELECT FROM retention_chunks(retention_remove_chunk.table_name) c WHERE c.range_start < place.range_start) THEN
        RAISE EXCEPTION '% has chunks older than %: they go first', retention_remove_chunk.table_name, chunk;
    END IF;
    -- Instead of the lock rollup-threshold, which would hold up every drain while we count: whoever has inserted into this chunk has committed,
    -- with his notes, once we have it; nobody inserts into it any more; and the threshold moves under the lock maintenance only, which we hold.
    EXECUTE format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', chunk);
    refused := ARRAY(SELECT r FROM retention_refusals(retention_remove_chunk.table_name, '', '', place.range_start, place.range_end) r);
    IF refused <> '{}' THEN
        rows := 0; bytes := 0;
        RETURN NEXT;
        RETURN;
    END IF;
    CASE retention_remove_chunk.table_name
    WHEN 'message', 'quarantine' THEN
        SELECT n.rows, n.newest INTO rows, newest FROM retention_note_records(
            format('SELECT received_at, kafka_offset, sequence, kafka_partition, connection_id, duplicate_of FROM %s', chunk),
            retention_remove_chunk.table_name = 'quarantine', greatest(audit_horizon(), place.range_end), place.range_start, place.range_end, '', '') n;
    WHEN 'measurement' THEN
        EXECUTE format('SELECT jsonb_object_agg(series_id, rows), sum(rows)::bigint, max(newest) FROM
            (SELECT series_id, count(*) AS rows, max(time) AS newest FROM %s GROUP BY 1) c', chunk) INTO counts, rows, newest;
        PERFORM retention_add_measurements(counts);
    ELSE
        EXECUTE format('SELECT count(*), max(%I) FROM %s', place.time_column, chunk) INTO rows, newest;
        IF retention_remove_chunk.table_name = 'ledger' THEN
            EXECUTE format($sql$
                INSERT INTO ledger_removed (kafka_topic, topic_id, kafka_partition, to_offset)
                SELECT DISTINCT ON (kafka_topic, topic_id, kafka_partition) kafka_topic, topic_id, kafka_partition, to_offset
                FROM %s WHERE kind <> 'replay' ORDER BY kafka_topic, topic_id, kafka_partition, batch_id DESC
                ON CONFLICT (kafka_topic, topic_id, kafka_partition) DO UPDATE SET to_offset = excluded.to_offset $sql$, chunk);
        END IF;
    END CASE;
    rows := coalesce(rows, 0);
    bytes := place.bytes;
    PERFORM retention_raise_mark(retention_remove_chunk.table_name, '', '', place.range_end);
    PERFORM retention_write_down(retention_remove_chunk.table_name, '', '', place.range_start, place.range_end, coalesce(newest, place.range_start), rows, bytes, 1);
    SELECT count(*) INTO dropped FROM drop_chunks(place.relation, older_than => place.range_end, newer_than => place.range_start);
    IF dropped <> 1 THEN
        RAISE EXCEPTION '% chunks of % lie between % and %, not one', dropped, retention_remove_chunk.table_name, place.range_start, place.range_end;
    END IF;
    RETURN NEXT;
END
$$;
COMMENT ON FUNCTION retention_remove_chunk(text, regclass, timestamptz) IS
    'Drops one chunk, the oldest of its table, that lies wholly beyond the policy for everybody; or says why not (refused). No row: it is gone already.';

CREATE OR REPLACE FUNCTION retention_remove_rows(table_name text, tenant text, project text, span_from timestamptz, span_to timestamptz,
    max_rows integer DEFAULT 10000, at timestamptz DEFAULT now()) RETURNS TABLE (rows bigint, newest timestamptz, done_to timestamptz, refused text[])
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp SET jit = off AS $$
#variable_conflict use_column
DECLARE
    name text := retention_remove_rows.table_name;
    cutoff timestamptz;
    place record;
    filter text;
    edge timestamptz;
    counts jsonb;
BEGIN
    PERFORM retention_begin();
    cutoff := CASE name WHEN 'accounting_1h' THEN date_trunc('hour', retention_mark_of('ledger', '', ''), 'UTC') ELSE retention_cutoff(name, tenant, project, at) END;
    SELECT t.relation, t.time_column, t.owner INTO STRICT place FROM retention_tables() t WHERE t.table_name = name;
    IF name = 'ledger' OR NOT retention_deletable(name) THEN
        RAISE EXCEPTION '% is only removed by whole chunks', name;
    ELSIF tenant <> '' AND NOT EXISTS (SELECT FROM retention_policy p WHERE p.table_name = name AND p.tenant_id = tenant AND p.project_id = project) THEN
        RAISE EXCEPTION 'there is no policy of tenant % project % for %', tenant, project, name;
    END IF;
    rows := 0;
    done_to := least(span_to, cutoff);
    refused := '{}';
    IF done_to <= span_from THEN
        done_to := span_to;
        RETURN NEXT;
        RETURN;
    END IF;
    filter := retention_filter(place.owner);
    -- At most about max_rows: to the time of the row behind them.
    EXECUTE format('SELECT %1$I FROM %2$s WHERE %1$I >= $1 AND %1$I < $2 AND %3$s ORDER BY 1 OFFSET $5 LIMIT 1', place.time_column, place.relation, filter)
        INTO edge USING span_from, done_to, tenant, project, max_rows;
    refused := ARRAY(SELECT r FROM retention_refusals(name, tenant, project, span_from, done_to) r);
    IF refused = '{}' AND name IN ('measurement', 'measurement_1h') THEN
        PERFORM retention_fence();  -- and once more, now that nothing uncommitted can come in between
        refused := ARRAY(SELECT r FROM retention_unstored(name, tenant, project, span_from, done_to) r);
    END IF;
    IF refused <> '{}' THEN
        RETURN NEXT;
        RETURN;
    END IF;
    done_to := CASE WHEN edge > span_from THEN edge WHEN edge IS NOT NULL THEN edge + interval '1 microsecond' ELSE done_to END;
    PERFORM retention_raise_mark(CASE name WHEN 'accounting_1h' THEN 'accounting_1h' ELSE name END, tenant, project, done_to);
    IF name IN ('message', 'quarantine') THEN
        SELECT n.rows, n.newest INTO rows, newest FROM retention_note_records(
            format('DELETE FROM %s WHERE received_at >= $1 AND received_at < $2 AND %s
                RETURNING received_at, kafka_offset, sequence, kafka_partition, connection_id, duplicate_of', place.relation, filter),
            name = 'quarantine', CASE tenant WHEN '' THEN greatest(audit_horizon(), done_to) ELSE audit_horizon() END, span_from, done_to, tenant, project) n;
    ELSIF name = 'measurement' THEN
        EXECUTE format('WITH gone AS (DELETE FROM %s WHERE time >= $1 AND time < $2 AND %s RETURNING series_id, time)
            SELECT jsonb_object_agg(series_id, rows), sum(rows)::bigint, max(newest) FROM
            (SELECT series_id, count(*) AS rows, max(time) AS newest FROM gone GROUP BY 1) c', place.relation, filter)
            INTO counts, rows, newest USING span_from, done_to, tenant, project;
        PERFORM retention_add_measurements(counts);
    ELSIF name = 'accounting_1h' THEN
        WITH gone AS (
            DELETE FROM accounting_1h a WHERE a.hour >= span_from AND a.hour < done_to RETURNING a.tenant_id, a.project_id, a.hour, a.measurements
        ), summed AS (
            INSERT INTO retention_sum AS r (tenant_id, project_id, accounted)
            SELECT g.tenant_id, g.project_id, sum(g.measurements) FROM gone g GROUP BY 1, 2 HAVING sum(g.measurements) <> 0 ORDER BY 1, 2
            ON CONFLICT (tenant_id, project_id) DO UPDATE SET accounted = r.accounted + excluded.accounted
        )
        SELECT count(*), max(g.hour) INTO rows, newest FROM gone g;
    ELSE
        EXECUTE format('WITH gone AS (DELETE FROM %2$s WHERE %1$I >= $1 AND %1$I < $2 AND %3$s RETURNING %1$I AS moment)
            SELECT count(*), max(moment) FROM gone', place.time_column, place.relation, filter)
            INTO rows, newest USING span_from, done_to, tenant, project;
    END IF;
    rows := coalesce(rows, 0);
    PERFORM retention_write_down(name, tenant, project, date_trunc('day', span_from, 'UTC'), done_to, newest, rows, 0, 0);
    RETURN NEXT;
END
$$;
COMMENT ON FUNCTION retention_remove_rows(text, text, text, timestamptz, timestamptz, integer, timestamptz) IS
    'Deletes rows in [span_from, span_to) that a policy (of everybody, a tenant or a project) does not keep, about max_rows, oldest first: everything before done_to is gone then. Or says why not (refused).';

CREATE OR REPLACE FUNCTION retention_forget(max_rows integer DEFAULT 10000) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp SET jit = off AS $$
DECLARE
    horizon timestamptz := audit_horizon();
    forgotten bigint;
BEGIN
    PERFORM retention_begin();
    WITH edge AS MATERIALIZED (
        SELECT kafka_partition, range_agg(int8range(from_offset, to_offset)) AS ranges FROM ledger
        WHERE kind = 'drain' AND committed_at >= day_before(horizon) AND first_received_at < horizon AND last_received_at >= horizon GROUP BY 1
    ), gone AS (
        DELETE FROM removed_record WHERE ctid = ANY (ARRAY(
            SELECT d.ctid FROM removed_record d LEFT JOIN edge e USING (kafka_partition)
            WHERE d.received_at < horizon AND (e.ranges @> d.kafka_offset) IS NOT TRUE LIMIT max_rows)) RETURNING connection_id, sequence
    ), passed AS (
        INSERT INTO mqtt_connection_removed AS r (connection_id, last_sequence)
        SELECT g.connection_id, max(g.sequence) FROM gone g WHERE g.connection_id IS NOT NULL GROUP BY 1 ORDER BY 1
        ON CONFLICT (connection_id) DO UPDATE SET last_sequence = excluded.last_sequence WHERE excluded.last_sequence > r.last_sequence
    )
    SELECT count(*) INTO forgotten FROM gone;
    RETURN forgotten;
END
$$;
COMMENT ON FUNCTION retention_forget(integer) IS
    'Deletes rows of removed_record that the audit does not look at any more, because the policies for everybody passed them. Returns how many.';

REVOKE EXECUTE ON FUNCTION retention_plan(timestamptz, boolean), retention_remove_chunk(text, regclass, timestamptz),
    retention_remove_rows(text, text, text, timestamptz, timestamptz, integer, timestamptz), retention_forget(integer) FROM PUBLIC;
