-- Retention: removing what is beyond its policy (retention.sql), chunk by chunk or in bounded batches of rows. Whoever removes anything
-- sets retention_mark in the same transaction, and leaves what the audit needs (audit_views.sql, audit_sums.sql).

-- Before rows of message or quarantine go: what the audit must know. `gone` is a query for them, with all values in it; how many, and the
-- newest, comes back.
CREATE OR REPLACE FUNCTION retention_note_records(gone text, quarantined boolean, horizon timestamptz, OUT rows bigint,
    OUT newest timestamptz)
LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format($sql$
        WITH gone AS (%s),
        edge AS MATERIALIZED (  -- batches across the horizon: what they lose is named, so that the rest of them can still be proved
            SELECT kafka_partition, log_generation, range_agg(int8range(from_offset, to_offset)) AS ranges FROM ledger
            WHERE kind = 'drain' AND committed_at >= day_before($1) AND first_received_at < $1 AND last_received_at >= $1 GROUP BY 1, 2
        ), named AS (
            INSERT INTO removed_record (received_at, kafka_offset, sequence, kafka_partition, connection_id, marked, quarantined,
                log_generation)
            SELECT g.received_at, g.kafka_offset, g.sequence, g.kafka_partition, g.connection_id, g.duplicate_of IS NOT NULL, $2,
                g.log_generation
            FROM gone g LEFT JOIN edge e USING (kafka_partition, log_generation) WHERE g.received_at >= $1 OR e.ranges @> g.kafka_offset
        ), passed AS (
            INSERT INTO mqtt_connection_removed AS r (connection_id, last_sequence)
            SELECT g.connection_id, max(g.sequence) FROM gone g WHERE g.connection_id IS NOT NULL AND g.received_at < $1 GROUP BY 1
                ORDER BY 1
            ON CONFLICT (connection_id) DO UPDATE SET last_sequence = excluded.last_sequence WHERE excluded.last_sequence > r.last_sequence
        )
        SELECT count(*), max(received_at) FROM gone $sql$, gone)
    INTO rows, newest USING horizon, quarantined;
END
$$;
COMMENT ON FUNCTION retention_note_records(text, boolean, timestamptz) IS
    'Removes or reads the records of a query, and notes in removed_record and mqtt_connection_removed what the audit still needs of them.';

CREATE OR REPLACE FUNCTION retention_begin() RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('lock_timeout', '10s', true);
    PERFORM pg_advisory_xact_lock(lock_key('maintenance'));
    PERFORM set_config('lock_timeout', '1s', true);
END
$$;
COMMENT ON FUNCTION retention_begin() IS
    'The lock that every transaction of maintenance takes first: they never run at once. Waits 10 s at most; for anything else the '
    'transaction then waits 1 s, because all maintenance waits with it.';

CREATE OR REPLACE FUNCTION retention_fence() RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('lock_timeout', '5s', true);
    PERFORM pg_advisory_xact_lock(lock_key('rollup-threshold'));
    PERFORM set_config('lock_timeout', '1s', true);
END
$$;
COMMENT ON FUNCTION retention_fence() IS
    'Until the end of the transaction nobody else inserts measurements, and nobody''s inserted ones are uncommitted. Waits 5 s at most: '
    'those who insert wait behind it.';

CREATE OR REPLACE FUNCTION retention_catch_up(table_name text, tenant text, project text, span_from timestamptz,
    span_to timestamptz) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF table_name IN ('measurement', 'measurement_1h')
        AND EXISTS (SELECT FROM retention_unstored(table_name, tenant, project, span_from, span_to)) THEN
        PERFORM rollup_refresh(1000);
    END IF;
END
$$;
COMMENT ON FUNCTION retention_catch_up(text, text, text, timestamptz, timestamptz) IS
    'Takes a small batch of notes where some wait in a time span: rows go on coming late, and each would hold up everything.';

CREATE OR REPLACE FUNCTION retention_raise_mark(table_name text, tenant text, project text, moment timestamptz) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO retention_mark AS m (table_name, tenant_id, project_id, removed_before) VALUES (table_name, tenant, project, moment)
    ON CONFLICT ON CONSTRAINT retention_mark_pkey DO UPDATE SET removed_before = excluded.removed_before
        WHERE excluded.removed_before > m.removed_before
$$;
COMMENT ON FUNCTION retention_raise_mark(text, text, text, timestamptz) IS 'Moves a mark of retention forward, never back.';

CREATE OR REPLACE FUNCTION retention_write_down(table_name text, tenant text, project text, range_from timestamptz, range_to timestamptz,
    newest timestamptz,
    rows bigint, bytes bigint, chunks integer) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO retention_removed AS r (table_name, tenant_id, project_id, range_from, range_to, newest, rows, bytes, chunks)
    SELECT table_name, tenant, project, range_from, range_to, newest, rows, bytes, chunks WHERE rows > 0 OR chunks > 0
    ON CONFLICT ON CONSTRAINT retention_removed_pkey DO UPDATE
        SET range_to = greatest(r.range_to, excluded.range_to), newest = greatest(r.newest, excluded.newest),
        rows = r.rows + excluded.rows, bytes = r.bytes + excluded.bytes, chunks = r.chunks + excluded.chunks,
        removed_at = excluded.removed_at
$$;
COMMENT ON FUNCTION retention_write_down(text, text, text, timestamptz, timestamptz, timestamptz, bigint, bigint, integer) IS
    'Adds to retention_removed.';

CREATE OR REPLACE FUNCTION retention_add_measurements(counts jsonb) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO retention_sum AS r (tenant_id, project_id, measurements)
    SELECT s.tenant_id, s.project_id, sum(c.value::bigint) FROM jsonb_each_text(counts) c JOIN series s ON s.series_id = c.key::integer
    WHERE NOT EXISTS (SELECT FROM tenant_leaving l WHERE l.tenant_id = s.tenant_id AND s.series_id <= l.last_series_id)
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
    ELSIF EXISTS (SELECT FROM retention_chunks(retention_remove_chunk.table_name) c
                  WHERE c.range_start < place.range_start AND c.range_end > retention_mark_of(retention_remove_chunk.table_name, '', ''))
                      THEN
        rows := 0; bytes := 0;  -- behind the mark late rows may make one at any time: the next run takes it
        refused := ARRAY[retention_remove_chunk.table_name || ' has an older chunk since the run began: the next run takes both'];
        RETURN NEXT;
        RETURN;
    END IF;
    -- Instead of the lock rollup-threshold, which would hold up every drain while we count: whoever has inserted into this chunk has
    -- committed, with his notes, once we have it; nobody inserts into it any more; and the threshold moves under the lock maintenance only,
    -- which we hold.
    EXECUTE format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', chunk);
    PERFORM retention_catch_up(retention_remove_chunk.table_name, '', '', place.range_start, place.range_end);
    refused := ARRAY(SELECT r FROM retention_refusals(retention_remove_chunk.table_name, '', '', place.range_start, place.range_end) r);
    IF refused <> '{}' THEN
        rows := 0; bytes := 0;
        RETURN NEXT;
        RETURN;
    END IF;
    CASE retention_remove_chunk.table_name
    WHEN 'message', 'quarantine' THEN
        SELECT n.rows, n.newest INTO rows, newest FROM retention_note_records(
            format('SELECT received_at, kafka_offset, sequence, kafka_partition, connection_id, duplicate_of, log_generation FROM %s',
                chunk),
            retention_remove_chunk.table_name = 'quarantine', greatest(audit_horizon(), place.range_end)) n;
    WHEN 'measurement' THEN
        EXECUTE format('SELECT jsonb_object_agg(series_id, rows), sum(rows)::bigint, max(newest) FROM
            (SELECT series_id, count(*) AS rows, max(time) AS newest FROM %s GROUP BY 1) c', chunk) INTO counts, rows, newest;
        PERFORM retention_add_measurements(counts);
    ELSE
        EXECUTE format('SELECT count(*), max(%I) FROM %s', place.time_column, chunk) INTO rows, newest;
        IF retention_remove_chunk.table_name = 'ledger' THEN
            EXECUTE format($sql$
                INSERT INTO ledger_removed (kafka_topic, topic_id, kafka_partition, log_generation, to_offset)
                SELECT DISTINCT ON (kafka_topic, topic_id, kafka_partition, log_generation) kafka_topic, topic_id, kafka_partition,
                    log_generation,
                       CASE kind WHEN 'log_cut' THEN from_offset ELSE to_offset END
                FROM %s WHERE kind <> 'replay' ORDER BY kafka_topic, topic_id, kafka_partition, log_generation, batch_id DESC
                ON CONFLICT (kafka_topic, topic_id, kafka_partition, log_generation) DO UPDATE
                    SET to_offset = excluded.to_offset $sql$, chunk);
        END IF;
    END CASE;
    rows := coalesce(rows, 0);
    bytes := place.bytes;
    PERFORM retention_raise_mark(retention_remove_chunk.table_name, '', '', place.range_end);
    PERFORM retention_write_down(retention_remove_chunk.table_name, '', '', place.range_start, place.range_end,
        coalesce(newest, place.range_start), rows, bytes, 1);
    SELECT count(*) INTO dropped FROM drop_chunks(place.relation, older_than => place.range_end, newer_than => place.range_start);
    IF dropped <> 1 THEN
        RAISE EXCEPTION '% chunks of % lie between % and %, not one', dropped, retention_remove_chunk.table_name, place.range_start,
            place.range_end;
    END IF;
    RETURN NEXT;
END
$$;
COMMENT ON FUNCTION retention_remove_chunk(text, regclass, timestamptz) IS
    'Drops one chunk, the oldest of its table, that lies wholly beyond the policy for everybody; or says why not (refused). No row: it '
    'is gone already.';

CREATE OR REPLACE FUNCTION retention_remove_rows(table_name text, tenant text, project text, span_from timestamptz, span_to timestamptz,
    max_rows integer DEFAULT 10000, at timestamptz DEFAULT now()) RETURNS TABLE (rows bigint, newest timestamptz, done_to timestamptz,
    refused text[])
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
    cutoff := CASE name WHEN 'accounting_1h' THEN date_trunc('hour', retention_mark_of('ledger', '', ''), 'UTC')
        ELSE retention_cutoff(name, tenant, project, at) END;
    SELECT t.relation, t.time_column, t.owner INTO STRICT place FROM retention_tables() t WHERE t.table_name = name;
    IF name = 'ledger' THEN
        RAISE EXCEPTION '% is only removed by whole chunks', name;
    ELSIF tenant <> '' AND NOT EXISTS (SELECT FROM retention_policy p WHERE p.table_name = name AND p.tenant_id = tenant
        AND p.project_id = project) THEN
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
    filter := retention_filter(place.owner, tenant, project);
    -- At most about max_rows: to the time of the row behind them.
    EXECUTE format('SELECT %1$I FROM %2$s WHERE %1$I >= $1 AND %1$I < $2 AND %3$s ORDER BY 1 OFFSET $3 LIMIT 1', place.time_column,
        place.relation, filter)
        INTO edge USING span_from, done_to, max_rows;
    PERFORM retention_catch_up(name, tenant, project, span_from, done_to);
    refused := ARRAY(SELECT r FROM retention_refusals(name, tenant, project, span_from, done_to) r);
    IF refused = '{}' AND name IN ('measurement', 'measurement_1h') THEN
        PERFORM retention_fence();  -- and once more, now that nothing uncommitted can come in between
        PERFORM retention_catch_up(name, tenant, project, span_from, done_to);
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
            format('DELETE FROM %s WHERE received_at >= %L AND received_at < %L AND %s
                RETURNING received_at, kafka_offset, sequence, kafka_partition, connection_id, duplicate_of, log_generation',
                place.relation, span_from, done_to, filter),
            name = 'quarantine', CASE tenant WHEN '' THEN greatest(audit_horizon(), done_to) ELSE audit_horizon() END) n;
    ELSIF name = 'measurement' THEN
        EXECUTE format('WITH gone AS (DELETE FROM %s WHERE time >= $1 AND time < $2 AND %s RETURNING series_id, time)
            SELECT jsonb_object_agg(series_id, rows), sum(rows)::bigint, max(newest) FROM
            (SELECT series_id, count(*) AS rows, max(time) AS newest FROM gone GROUP BY 1) c', place.relation, filter)
            INTO counts, rows, newest USING span_from, done_to;
        PERFORM retention_add_measurements(counts);
    ELSIF name = 'accounting_1h' THEN
        WITH gone AS (
            DELETE FROM accounting_1h a WHERE a.hour >= span_from AND a.hour < done_to
                RETURNING a.tenant_id, a.project_id, a.hour, a.measurements
        ), summed AS (
            INSERT INTO retention_sum AS r (tenant_id, project_id, accounted)
            SELECT g.tenant_id, g.project_id, sum(g.measurements) FROM gone g GROUP BY 1, 2 HAVING sum(g.measurements) <> 0 ORDER BY 1, 2
            ON CONFLICT (tenant_id, project_id) DO UPDATE SET accounted = r.accounted + excluded.accounted
        )
        SELECT count(*), max(g.hour) INTO rows, newest FROM gone g;
    ELSE
        EXECUTE format('WITH gone AS (DELETE FROM %2$s WHERE %1$I >= $1 AND %1$I < $2 AND %3$s RETURNING %1$I AS moment)
            SELECT count(*), max(moment) FROM gone', place.time_column, place.relation, filter)
            INTO rows, newest USING span_from, done_to;
    END IF;
    rows := coalesce(rows, 0);
    PERFORM retention_write_down(name, tenant, project, date_trunc('day', span_from, 'UTC'), done_to, newest, rows, 0, 0);
    RETURN NEXT;
END
$$;
COMMENT ON FUNCTION retention_remove_rows(text, text, text, timestamptz, timestamptz, integer, timestamptz) IS
    'Deletes rows in [span_from, span_to) that a policy (of everybody, a tenant or a project) does not keep, about max_rows, oldest '
    'first: everything before done_to is gone then. Or says why not (refused).';

CREATE OR REPLACE FUNCTION retention_forget(max_rows integer DEFAULT 10000) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp SET jit = off AS $$
DECLARE
    horizon timestamptz := audit_horizon();
    forgotten bigint;
BEGIN
    PERFORM retention_begin();
    WITH edge AS MATERIALIZED (
        SELECT kafka_partition, log_generation, range_agg(int8range(from_offset, to_offset)) AS ranges FROM ledger
        WHERE kind = 'drain' AND committed_at >= day_before(horizon) AND first_received_at < horizon AND last_received_at >= horizon
            GROUP BY 1, 2
    ), gone AS (
        DELETE FROM removed_record WHERE ctid = ANY (ARRAY(
            SELECT d.ctid FROM removed_record d LEFT JOIN edge e USING (kafka_partition, log_generation)
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
    'Deletes rows of removed_record that the audit does not look at any more, because the policies for everybody passed them. Returns '
    'how many.';

REVOKE EXECUTE ON FUNCTION retention_remove_chunk(text, regclass, timestamptz),
    retention_remove_rows(text, text, text, timestamptz, timestamptz, integer, timestamptz), retention_forget(integer) FROM PUBLIC;
