-- Deleting a tenant. Before the cut most of what names it directly goes in batches. The cut, one short transaction that no drain overlaps,
-- draws the line: series and sources up to an id are the old tenant's (view tenant_leaving), and whoever looks names up does not find them
-- any more. Then they go, then the rows that carry their ids, in batches. Every step can be killed and repeated. Docs: docs/tenants.md.
SET LOCAL check_function_bodies = off;

-- One bounded batch of each table before the cut. As many rows as asked for: repeat. Settings, marks and sums stay until the cut: what is
-- still there is kept and computed by them.
CREATE OR REPLACE FUNCTION tenant_deletion_prepare(deletion integer, max_rows integer DEFAULT 10000) RETURNS TABLE (table_name text,
    rows bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp SET jit = off AS $$
#variable_conflict use_column
DECLARE
    tenant text;
BEGIN
    PERFORM retention_begin();
    SELECT d.tenant_id INTO STRICT tenant FROM tenant_deletion d WHERE d.deletion_id = deletion AND d.cut_at IS NULL
        AND d.finished_at IS NULL;
    FOR table_name IN SELECT t.table_name FROM tenant_deletion_by_name() t
        WHERE t.table_name NOT LIKE 'retention%' AND t.table_name NOT IN ('quality_rule', 'project_option', 'decode_correction')
    LOOP
        EXECUTE format('DELETE FROM %1$I WHERE ctid = ANY (ARRAY(SELECT t.ctid FROM %1$I t WHERE t.tenant_id = $1 LIMIT $2))', table_name)
            USING tenant, max_rows;
        GET DIAGNOSTICS rows = ROW_COUNT;
        PERFORM tenant_deletion_count(deletion, table_name, rows);
        RETURN NEXT;
    END LOOP;
END
$$;
COMMENT ON FUNCTION tenant_deletion_prepare(integer, integer) IS
    'Deletes a batch of a tenant''s rows of each plain table that names it (accounting_1h, what quality learnt …), so that the cut has '
    'few left. Returns how many went.';

CREATE OR REPLACE FUNCTION tenant_deletion_count(deletion integer, table_name text, rows bigint) RETURNS void
LANGUAGE sql AS $$
    UPDATE tenant_deletion SET removed = removed || jsonb_build_object(table_name, coalesce((removed ->> table_name)::bigint, 0) + rows)
    WHERE deletion_id = deletion AND rows > 0
$$;
COMMENT ON FUNCTION tenant_deletion_count(integer, text, bigint) IS 'Adds to what a deletion removed.';

CREATE OR REPLACE FUNCTION tenant_deletion_cut(deletion integer) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp SET jit = off AS $$
#variable_conflict use_column
DECLARE
    tenant text;
    count bigint;
    name text;
BEGIN
    PERFORM retention_begin();
    PERFORM set_config('lock_timeout', '5s', true);
    LOCK TABLE project IN SHARE ROW EXCLUSIVE MODE;  -- whoever was creating names has committed then, and nobody begins to
    -- no drain or replay is inside its transaction; those that come see the new generation
    PERFORM pg_advisory_xact_lock(lock_key('catalog'));
    SELECT d.tenant_id INTO STRICT tenant FROM tenant_deletion d WHERE d.deletion_id = deletion AND d.cut_at IS NULL FOR UPDATE;
    UPDATE catalog_generation SET generation = generation + 1;
    INSERT INTO tenant_deletion_offset (deletion_id, topic_id, kafka_partition, next_offset, log_generation)
        SELECT deletion, k.topic_id, k.kafka_partition, k.next_offset, k.log_generation FROM kafka_offset k ON CONFLICT DO NOTHING;
    UPDATE tenant_deletion SET cut_at = clock_timestamp(),
        projects = ARRAY(SELECT p.project_id FROM project p WHERE p.tenant_id = tenant ORDER BY 1),
        last_series_id = coalesce((SELECT max(s.series_id) FROM series s), 0),
        last_source_id = coalesce((SELECT max(s.source_id) FROM source s), 0)
        WHERE deletion_id = deletion;
    -- Their series and sources refer to them: projects go with the last of these, unless new ones came.
    UPDATE project SET series_count = 0, source_count = 0, first_seen_at = clock_timestamp() WHERE tenant_id = tenant;
    -- What came since it was prepared, settings, marks, sums.
    FOR name IN SELECT t.table_name FROM tenant_deletion_by_name() t LOOP
        EXECUTE format('DELETE FROM %I WHERE tenant_id = $1', name) USING tenant;
        GET DIAGNOSTICS count = ROW_COUNT;
        PERFORM tenant_deletion_count(deletion, name, count);
    END LOOP;
END
$$;
COMMENT ON FUNCTION tenant_deletion_cut(integer) IS
    'Draws the line in one short transaction: what was committed before belongs to nobody and goes in batches, what comes later is a new '
    'tenant''s.';

CREATE OR REPLACE FUNCTION tenant_deletion_names(deletion integer, max_rows integer DEFAULT 2000) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp SET jit = off AS $$
DECLARE
    leaving tenant_leaving;
    count bigint;
BEGIN
    PERFORM retention_begin();
    SELECT * INTO leaving FROM tenant_leaving l WHERE l.deletion_id = deletion;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    -- Locked rows are skipped: somebody makes way for a new name. So we never wait for one who waits for us.
    WITH gone AS (
        DELETE FROM series WHERE series_id = ANY (ARRAY(
            SELECT s.series_id FROM series s WHERE s.tenant_id = leaving.tenant_id AND s.series_id <= leaving.last_series_id
            LIMIT max_rows FOR UPDATE SKIP LOCKED)) RETURNING series_id
    )
    INSERT INTO tenant_deletion_series (deletion_id, series_id) SELECT deletion, series_id FROM gone;
    WITH gone AS (
        DELETE FROM source WHERE source_id = ANY (ARRAY(
            SELECT s.source_id FROM source s WHERE s.tenant_id = leaving.tenant_id AND s.source_id <= leaving.last_source_id
            LIMIT max_rows FOR UPDATE SKIP LOCKED)) RETURNING source_id
    )
    INSERT INTO tenant_deletion_source (deletion_id, source_id) SELECT deletion, source_id FROM gone;
    IF EXISTS (SELECT FROM series s WHERE s.tenant_id = leaving.tenant_id AND s.series_id <= leaving.last_series_id)
        OR EXISTS (SELECT FROM source s WHERE s.tenant_id = leaving.tenant_id AND s.source_id <= leaving.last_source_id)
    THEN
        RETURN true;
    END IF;
    DELETE FROM project p WHERE p.tenant_id = leaving.tenant_id AND p.series_count = 0 AND p.source_count = 0;
    GET DIAGNOSTICS count = ROW_COUNT;
    PERFORM tenant_deletion_count(deletion, 'project', count);
    UPDATE tenant_deletion SET names_gone_at = clock_timestamp(),
        series = (SELECT count(*) FROM tenant_deletion_series s WHERE s.deletion_id = deletion),
        sources = (SELECT count(*) FROM tenant_deletion_source s WHERE s.deletion_id = deletion)
        WHERE deletion_id = deletion;
    RETURN false;
END
$$;
COMMENT ON FUNCTION tenant_deletion_names(integer, integer) IS
    'Deletes a batch of the series and sources of a tenant past its cut, keeping their ids; with the last ones its projects. Whether any '
    'are left.';

-- A drain or replay that is about to create names calls this, under the lock of their projects' rows. Usually there is nothing to do.
CREATE OR REPLACE FUNCTION catalog_make_way(of_series bytea[], of_sources bytea[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp SET jit = off AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM tenant_leaving) THEN
        RETURN;
    END IF;
    WITH gone AS (
        DELETE FROM series s USING tenant_leaving l WHERE s.identity = ANY (of_series) AND l.tenant_id = s.tenant_id
            AND s.series_id <= l.last_series_id
        RETURNING l.deletion_id, s.series_id
    )
    INSERT INTO tenant_deletion_series (deletion_id, series_id) SELECT deletion_id, series_id FROM gone;
    WITH gone AS (
        DELETE FROM source s USING tenant_leaving l WHERE s.identity = ANY (of_sources) AND l.tenant_id = s.tenant_id
            AND s.source_id <= l.last_source_id
        RETURNING l.deletion_id, s.source_id
    )
    INSERT INTO tenant_deletion_source (deletion_id, source_id) SELECT deletion_id, source_id FROM gone;
END
$$;
COMMENT ON FUNCTION catalog_make_way(bytea[], bytea[]) IS
    'Deletes those of these series and sources (by identity) that are of a tenant past its cut, keeping their ids for its deletion: the '
    'names become free for a new tenant of that id.';

-- One bounded batch after the cut, from one table in one time span. A rows count of 0: nothing of it is left there.
CREATE OR REPLACE FUNCTION tenant_deletion_remove(deletion integer, table_name text, span_from timestamptz, span_to timestamptz,
    max_rows integer,
    first_id integer, last_id integer)
RETURNS TABLE (rows bigint, done_to timestamptz)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp SET jit = off AS $$
#variable_conflict use_column
DECLARE
    name text := tenant_deletion_remove.table_name;
    place record;
    leaving tenant_deletion;
    filter text;
    edge timestamptz;
BEGIN
    PERFORM retention_begin();
    SELECT * INTO STRICT leaving FROM tenant_deletion d WHERE d.deletion_id = deletion AND d.names_gone_at IS NOT NULL
        AND d.finished_at IS NULL;
    SELECT t.relation, t.time_column, t.owner INTO STRICT place FROM retention_tables() t WHERE t.table_name = name;
    filter := CASE place.owner
        WHEN 'source' THEN format('source_id = ANY (ARRAY(SELECT s.source_id FROM tenant_deletion_source s
            WHERE s.deletion_id = %s AND s.source_id BETWEEN %s AND %s))', deletion, first_id, last_id)
        WHEN 'series' THEN format('series_id = ANY (ARRAY(SELECT s.series_id FROM tenant_deletion_series s
            WHERE s.deletion_id = %s AND s.series_id BETWEEN %s AND %s))', deletion, first_id, last_id)
        ELSE format('tenant_id = %L', leaving.tenant_id) END;
    IF name = 'quarantine' THEN  -- what came after the cut is the new tenant's
        filter := filter || format(' AND EXISTS (
            SELECT FROM tenant_deletion_offset o WHERE o.deletion_id = %s AND o.kafka_partition = t.kafka_partition
            AND (t.log_generation, t.kafka_offset) < (o.log_generation, o.next_offset))', deletion);
    ELSIF place.owner = 'names' THEN
        filter := filter || format(' AND %I <= %L', place.time_column, leaving.cut_at);
    END IF;
    IF EXISTS (SELECT FROM retention_chunks(name) c WHERE c.compressed AND c.range_start < span_to AND c.range_end > span_from) THEN
        -- Of rows that an earlier batch took out of compression, a DELETE by a bitmap of the BRIN index passes some over (TimescaleDB
        -- 2.23).
        PERFORM set_config('enable_bitmapscan', 'off', true);
    END IF;
    EXECUTE format('SELECT %1$I FROM %2$s t WHERE %1$I >= $1 AND %1$I < $2 AND %3$s ORDER BY 1 OFFSET $3 LIMIT 1', place.time_column,
        place.relation, filter)
        INTO edge USING span_from, span_to, max_rows;
    done_to := CASE WHEN edge > span_from THEN edge WHEN edge IS NOT NULL THEN edge + interval '1 microsecond' ELSE span_to END;
    IF name IN ('message', 'quarantine') THEN
        SELECT n.rows INTO rows FROM retention_note_records(
            format('DELETE FROM %s t WHERE received_at >= %L AND received_at < %L AND %s
                RETURNING received_at, kafka_offset, sequence, kafka_partition, connection_id, duplicate_of, log_generation',
                place.relation, span_from, done_to, filter),
            name = 'quarantine', audit_horizon()) n;
    ELSE
        EXECUTE format('DELETE FROM %2$s t WHERE %1$I >= $1 AND %1$I < $2 AND %3$s', place.time_column, place.relation, filter)
            USING span_from, done_to;
        GET DIAGNOSTICS rows = ROW_COUNT;
    END IF;
    PERFORM tenant_deletion_count(deletion, name, rows);
    RETURN NEXT;
END
$$;
COMMENT ON FUNCTION tenant_deletion_remove(integer, text, timestamptz, timestamptz, integer, integer, integer) IS
    'Deletes about max_rows rows of a tenant that is past its cut from one table of retention_tables, oldest first: none before done_to '
    'is left in the span, of those series or sources whose ids lie between first_id and last_id (tables that name their tenant: of all).';

CREATE OR REPLACE FUNCTION tenant_deletion_tables(column_name text) RETURNS TABLE (table_name name)
LANGUAGE sql STABLE AS $$
    SELECT k.relname FROM pg_class k JOIN pg_attribute a ON a.attrelid = k.oid AND NOT a.attisdropped
    WHERE k.relkind = 'r' AND k.relnamespace = 'public'::regnamespace AND a.attname = column_name
      AND NOT EXISTS (SELECT FROM timescaledb_information.hypertables h WHERE h.hypertable_schema = 'public'
          AND h.hypertable_name = k.relname)
    ORDER BY 1
$$;
COMMENT ON FUNCTION tenant_deletion_tables(text) IS
    'The plain tables of the platform that have such a column; hypertables are not among them.';

CREATE OR REPLACE FUNCTION tenant_deletion_by_name() RETURNS TABLE (table_name name)
LANGUAGE sql STABLE AS $$
    SELECT t.table_name FROM tenant_deletion_tables('tenant_id') t
    WHERE t.table_name NOT IN ('tenant_deletion', 'tenant_role', 'console_tenant', 'series', 'source', 'project')
$$;
COMMENT ON FUNCTION tenant_deletion_by_name() IS
    'Plain tables whose rows name their tenant, of which nothing may outlast the cut: books, policies, marks, sums, and whatever other '
    'parts of the platform keep by tenant.';

CREATE OR REPLACE FUNCTION tenant_deletion_small(deletion integer, max_rows integer DEFAULT 10000) RETURNS TABLE (table_name text,
    rows bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp SET jit = off AS $$
#variable_conflict use_column
BEGIN
    PERFORM retention_begin();
    FOR table_name IN SELECT t.table_name FROM tenant_deletion_tables('series_id') t
        WHERE t.table_name NOT IN ('series', 'tenant_deletion_series') LOOP
        EXECUTE format('DELETE FROM %1$I WHERE ctid = ANY (ARRAY(
            SELECT t.ctid FROM %1$I t JOIN tenant_deletion_series s USING (series_id) WHERE s.deletion_id = $1 LIMIT $2))', table_name)
            USING deletion, max_rows;
        GET DIAGNOSTICS rows = ROW_COUNT;
        PERFORM tenant_deletion_count(deletion, table_name, rows);
        RETURN NEXT;
    END LOOP;
END
$$;
COMMENT ON FUNCTION tenant_deletion_small(integer, integer) IS
    'Deletes a batch of what plain tables keep by series (latest values, notes of the rollups …) of a tenant past its cut. Repeat until '
    'all are 0.';

CREATE OR REPLACE FUNCTION tenant_deletion_dead_letters(deletion integer, topics text[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    count bigint;
BEGIN
    PERFORM retention_begin();
    UPDATE dead_letter SET topic = '(deleted)' WHERE topic = ANY (topics)
        AND EXISTS (SELECT FROM tenant_deletion d WHERE d.deletion_id = deletion AND d.cut_at IS NOT NULL AND d.finished_at IS NULL);
    GET DIAGNOSTICS count = ROW_COUNT;
    PERFORM tenant_deletion_count(deletion, 'dead_letter', count);
END
$$;
COMMENT ON FUNCTION tenant_deletion_dead_letters(integer, text[]) IS
    'Takes the topics that name a deleted tenant out of dead_letter; the rows stay, because the audit counts them.';

CREATE OR REPLACE FUNCTION tenant_deletion_finish(deletion integer) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    PERFORM retention_begin();
    DELETE FROM tenant_deletion_series WHERE deletion_id = deletion;
    DELETE FROM tenant_deletion_source WHERE deletion_id = deletion;
    UPDATE tenant_deletion SET finished_at = clock_timestamp() WHERE deletion_id = deletion AND names_gone_at IS NOT NULL
        AND finished_at IS NULL;
END
$$;
COMMENT ON FUNCTION tenant_deletion_finish(integer) IS
    'Ends a deletion of which nothing is left. Its row, and the offsets at its cut, stay.';

REVOKE EXECUTE ON FUNCTION tenant_deletion_prepare(integer, integer), tenant_deletion_cut(integer), tenant_deletion_names(integer, integer),
    catalog_make_way(bytea[], bytea[]),
    tenant_deletion_remove(integer, text, timestamptz, timestamptz, integer, integer, integer), tenant_deletion_small(integer, integer),
    tenant_deletion_dead_letters(integer, text[]), tenant_deletion_finish(integer) FROM PUBLIC;
