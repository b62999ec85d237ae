-- Retention: what is beyond its policy, and why it may not go yet. Removing it: retention_remove.sql.
SET LOCAL check_function_bodies = off;

CREATE OR REPLACE FUNCTION retention_tables() RETURNS TABLE (place integer, table_name text, relation regclass, time_column name,
    owner text)
LANGUAGE sql STABLE AS $$
    SELECT t.place, t.table_name, coalesce(to_regclass(t.table_name || '_stored'), to_regclass(t.table_name)), t.time_column::name, t.owner
    FROM (VALUES
        (1, 'message', 'received_at', 'source'), (2, 'measurement', 'time', 'series'), (3, 'measurement_1h', 'bucket', 'series'),
        (4, 'measurement_1d', 'bucket', 'series'), (5, 'quarantine', 'received_at', 'names'), (6, 'ledger', 'committed_at', 'nobody'),
        (7, 'accounting_1h', 'hour', 'nobody'), (8, 'quality_result', 'evaluated_at', 'names'),
        (9, 'quality_incident', 'closed_at', 'names')
    ) t (place, table_name, time_column, owner)
    WHERE to_regclass(t.table_name) IS NOT NULL
$$;
COMMENT ON FUNCTION retention_tables() IS
    'One row is one table that retention keeps short: where its rows are, the column that tells their age, and how they name their '
    'project (by source, series, names, or not).';

CREATE OR REPLACE FUNCTION day_before(moment timestamptz) RETURNS timestamptz
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN isfinite(moment) THEN moment - interval '24 hours' ELSE moment END
$$;
COMMENT ON FUNCTION day_before(timestamptz) IS 'A day earlier; TimescaleDB''s planner fails on infinity minus an interval.';

CREATE OR REPLACE FUNCTION retention_cutoff(table_name text, tenant text DEFAULT '', project text DEFAULT '',
    at timestamptz DEFAULT now()) RETURNS timestamptz
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
            WHERE p.table_name = r.table_name
                AND (p.tenant_id, p.project_id) IN (('', ''), (s.tenant_id, ''), (s.tenant_id, s.project_id))) AS moment
        FROM scope s CROSS JOIN (VALUES ('message'), ('measurement'), ('measurement_1h'), ('measurement_1d'), ('quarantine'),
            ('ledger')) r (table_name)
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
    'Policies that contradict each other: rollups kept shorter than what they are made of, the ledger shorter than what it accounts for. '
    'None of both is removed then.';

CREATE OR REPLACE FUNCTION retention_chunks(table_name text) RETURNS TABLE (chunk regclass, range_start timestamptz, range_end timestamptz,
    bytes bigint, compressed boolean)
LANGUAGE sql STABLE AS $$
    SELECT s.chunk, c.range_start, c.range_end, s.total_bytes, c.is_compressed
    FROM retention_tables() t
    JOIN pg_class k ON k.oid = t.relation
    JOIN timescaledb_information.chunks c ON c.hypertable_name = k.relname AND c.hypertable_schema = k.relnamespace::regnamespace::text
    CROSS JOIN LATERAL (
        SELECT k.chunk, pg_total_relation_size(k.chunk) AS total_bytes  -- null: somebody dropped it this moment
        FROM (SELECT to_regclass(format('%I.%I', c.chunk_schema, c.chunk_name)) AS chunk) k
    ) s
    WHERE t.table_name = retention_chunks.table_name AND s.total_bytes IS NOT NULL
    UNION ALL
    SELECT t.relation, '-infinity', 'infinity', pg_total_relation_size(t.relation), false
    FROM retention_tables() t JOIN pg_class k ON k.oid = t.relation
    WHERE t.table_name = retention_chunks.table_name AND k.relkind = 'r' AND NOT EXISTS (
        SELECT FROM timescaledb_information.hypertables h WHERE h.hypertable_name = k.relname
            AND h.hypertable_schema = k.relnamespace::regnamespace::text)
$$;
COMMENT ON FUNCTION retention_chunks(text) IS
    'One row is one chunk of a table of retention_tables, with its size on disk; a table without chunks is one that reaches from '
    'infinity to infinity.';

CREATE OR REPLACE FUNCTION retention_mark_of(table_name text, tenant text, project text) RETURNS timestamptz
LANGUAGE sql STABLE AS $$
    SELECT coalesce(max(m.removed_before), '-infinity') FROM retention_mark m
    WHERE m.table_name = retention_mark_of.table_name AND (m.tenant_id, m.project_id) IN (('', ''), (tenant, ''), (tenant, project))
$$;
COMMENT ON FUNCTION retention_mark_of(text, text, text) IS
    'Rows before it are gone, fully or partly, by the policies of everybody, this tenant or this project.';

CREATE OR REPLACE FUNCTION retention_still_there(table_name text) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
    SELECT 'rows of ' || table_name || ' of that time are still there'
$$;
COMMENT ON FUNCTION retention_still_there(text) IS 'Why the ledger stays: what it accounts for does.';

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
                WHERE l.kind = 'drain' AND l.committed_at >= day_before(begins) AND l.first_received_at < span_to
                    AND l.last_received_at >= begins
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
        RETURN QUERY SELECT retention_still_there(t.table_name) FROM retention_tables() t
            WHERE t.table_name IN ('message', 'quarantine')
              AND retention_mark_of(t.table_name, '', '') < span_to
              AND EXISTS (SELECT FROM retention_chunks(t.table_name) c WHERE c.range_start < span_to);
    END IF;
END
$$;
COMMENT ON FUNCTION retention_refusals(text, text, text, timestamptz, timestamptz) IS
    'Reasons why rows of a time span may not be removed yet: not completely rolled up, a batch unaccounted, policies that contradict '
    'each other. None: they may.';

CREATE OR REPLACE FUNCTION retention_unstored(table_name text, tenant text, project text, span_from timestamptz,
    span_to timestamptz) RETURNS SETOF text
LANGUAGE sql STABLE AS $$
    WITH kept AS (
        SELECT CASE table_name WHEN 'measurement' THEN 'measurement_1h' ELSE 'measurement_1d' END AS name,
               CASE table_name WHEN 'measurement' THEN threshold ELSE threshold_1d END AS stored_before FROM rollup_state
    )
    SELECT k.name || ' is not complete: it is stored before ' || CASE WHEN isfinite(k.stored_before)
        THEN to_char(k.stored_before AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI"Z"') ELSE 'no hour yet' END
    FROM kept k WHERE k.stored_before < span_to
    UNION ALL
    SELECT k.name || ' is not complete: ' || n.notes || ' notes of changed hours wait, the first of '
        || to_char(n.first AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI"Z"')
    FROM kept k CROSS JOIN (
        SELECT count(*) AS notes, min(n.bucket) AS first FROM rollup_change n
        WHERE n.bucket > CASE WHEN isfinite(span_from) THEN span_from - interval '1 hour' ELSE span_from END AND n.bucket < span_to
          AND n.bucket >= retention_mark_of('measurement', tenant, project)
          AND (tenant = '' OR n.series_id IN (SELECT s.series_id FROM series s WHERE s.tenant_id = tenant
              AND project IN ('', s.project_id)))
    ) n WHERE n.notes > 0
$$;
COMMENT ON FUNCTION retention_unstored(text, text, text, timestamptz, timestamptz) IS
    'Why the rollup of a table''s rows in a time span is not complete: not stored yet, or notes of changes that it has not taken.';

CREATE OR REPLACE FUNCTION retention_uneven(tenant text, project text, span_from timestamptz, span_to timestamptz) RETURNS SETOF text
LANGUAGE sql STABLE AS $$
    SELECT 'tenant ' || s.tenant_id || ' project ' || s.project_id || ' is unaccounted: ' || coalesce(sum(m.rows),
        0) || ' measurements stored, '
        || coalesce(sum(r.rows), 0) || ' in measurement_1h'
    FROM (SELECT series_id, count(*) AS rows FROM measurement WHERE time >= span_from AND time < span_to GROUP BY 1) m
    FULL JOIN (SELECT series_id, sum(value_count)::bigint AS rows FROM measurement_1h WHERE bucket >= span_from AND bucket < span_to
        GROUP BY 1) r USING (series_id)
    JOIN series s USING (series_id)  -- without the series of a tenant that is being deleted
    WHERE NOT EXISTS (SELECT FROM tenant_leaving l WHERE l.tenant_id = s.tenant_id AND s.series_id <= l.last_series_id)
      AND m.rows IS DISTINCT FROM r.rows AND (tenant = '' OR s.tenant_id = tenant AND project IN ('', s.project_id))
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

-- What would go: whole chunks, and the rows of each policy that are older than its cutoff in chunks that stay. In the order of a run, and
-- each item as it is after those before it: what a broader policy takes is not there any more, what it is refused still is.
CREATE OR REPLACE FUNCTION retention_plan(at timestamptz DEFAULT now(), counted boolean DEFAULT true) RETURNS TABLE (
    table_name text, tenant_id text, project_id text, chunk regclass, range_from timestamptz, range_to timestamptz,
    rows bigint, bytes bigint, newest timestamptz, refused text[])
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp SET jit = off AS $$
#variable_conflict use_column
DECLARE
    item record;
    scope text;
    stopped text[] := '{}';
    reached jsonb := '{}';  -- by scope: how far its items before this one go
    unaccounted jsonb;
BEGIN
    FOR item IN
        SELECT t.place, t.table_name, t.time_column, t.owner, s.tenant_id, s.project_id, c.chunk, c.chunk::text AS name,
            c.range_start AS range_from,
               least(c.range_end, s.cutoff) AS range_to, c.bytes, s.tenant_id = '' AND c.range_end <= s.cutoff AS whole
        FROM retention_tables() t
        JOIN LATERAL (
            SELECT p.tenant_id, p.project_id, retention_cutoff(t.table_name, p.tenant_id, p.project_id, at) AS cutoff
                FROM retention_policy p
            WHERE p.table_name = t.table_name
        ) s ON true
        JOIN LATERAL retention_chunks(t.table_name) c ON c.range_start < s.cutoff
        WHERE (s.tenant_id = '' AND c.range_end <= s.cutoff)
           OR (t.table_name <> 'ledger' AND NOT c.compressed
               AND (s.tenant_id = '' OR c.range_end > retention_cutoff(t.table_name, '', '', at)))
        ORDER BY t.place, s.tenant_id, s.project_id, c.range_start
    LOOP
        table_name := item.table_name; tenant_id := item.tenant_id; project_id := item.project_id;
        scope := concat_ws('/', item.table_name, item.tenant_id, item.project_id);
        chunk := CASE WHEN item.whole THEN item.chunk END;
        range_from := item.range_from; range_to := item.range_to;
        bytes := CASE WHEN item.whole THEN item.bytes ELSE 0 END;
        rows := NULL; newest := NULL; refused := '{}';
        BEGIN
            IF range_from = '-infinity' THEN
                EXECUTE format('SELECT min(%I) FROM %s', item.time_column, item.name) INTO range_from;
            END IF;
            CONTINUE WHEN range_from IS NULL OR range_from >= range_to;
            IF counted AND tenant_id <> '' THEN
                range_from := greatest(range_from, (reached ->> (item.table_name || '//'))::timestamptz,
                    CASE WHEN project_id <> '' THEN reached ->> (item.table_name || '/' || item.tenant_id || '/') END::timestamptz);
            END IF;
            IF counted THEN
                EXECUTE format('SELECT count(*), max(%1$I) FROM %2$s WHERE %1$I >= $1 AND %1$I < $2 AND %3$s', item.time_column, item.name,
                    retention_filter(item.owner, tenant_id, project_id)) INTO rows, newest USING range_from, range_to;
            END IF;
        EXCEPTION WHEN undefined_table THEN
            CONTINUE;  -- somebody dropped it this moment
        END;
        IF item.table_name = 'measurement' THEN
            unaccounted := coalesce(unaccounted, (SELECT jsonb_agg(m) FROM audit_measurements() m WHERE m.problem IS NOT NULL), '[]');
            refused := ARRAY(
                SELECT 'tenant ' || coalesce(nullif(p.tenant_id, ''), '–') || ' project ' || coalesce(nullif(p.project_id, ''),
                    '–') || ' is unaccounted: ' || p.problem
                FROM jsonb_to_recordset(unaccounted) p (tenant_id text, project_id text, problem text)
                WHERE item.tenant_id IN ('', p.tenant_id) AND item.project_id IN ('', p.project_id) ORDER BY p.tenant_id, p.project_id
                    LIMIT 20);
        END IF;
        IF counted THEN
            IF scope = ANY (stopped) THEN
                refused := ARRAY['an older part of it was refused'];
            ELSIF refused = '{}' THEN
                refused := ARRAY(
                    SELECT r FROM retention_refusals(item.table_name, tenant_id, project_id, range_from, range_to) r
                    WHERE NOT EXISTS (  -- the rows that hold up the ledger go before it
                        SELECT FROM unnest(ARRAY['message', 'quarantine']) t (name)
                        WHERE item.table_name = 'ledger' AND r = retention_still_there(t.name) AND (
                            (reached ->> (t.name || '//'))::timestamptz >= range_to OR NOT EXISTS (
                                SELECT FROM retention_chunks(t.name) c WHERE c.range_start < range_to
                                    AND c.range_end > coalesce((reached ->> (t.name || '//'))::timestamptz, '-infinity')))));
            END IF;
            IF refused <> '{}' THEN
                stopped := stopped || scope;
            ELSE
                reached := reached || jsonb_build_object(scope, range_to);
                CONTINUE WHEN rows = 0 AND chunk IS NULL;
            END IF;
        END IF;
        RETURN NEXT;
    END LOOP;
    table_name := 'accounting_1h'; tenant_id := ''; project_id := ''; chunk := NULL; bytes := 0; refused := '{}';
    SELECT min(a.hour), max(k.moment), CASE WHEN counted THEN count(*) END, max(a.hour) INTO range_from, range_to, rows, newest
    FROM (
        SELECT greatest(retention_mark_of('ledger', '', ''), CASE WHEN counted THEN (reached ->> 'ledger//')::timestamptz
            ELSE max(c.range_end) END) AS moment
        FROM retention_chunks('ledger') c WHERE c.range_end <= retention_cutoff('ledger', '', '', at)
    ) k JOIN accounting_1h a ON a.hour < date_trunc('hour', k.moment, 'UTC') WHERE isfinite(k.moment);
    IF range_from IS NOT NULL THEN
        RETURN NEXT;
    END IF;
END
$$;
COMMENT ON FUNCTION retention_plan(timestamptz, boolean) IS
    'One row is one chunk that would be dropped whole (chunk names it), or the old rows of one policy in one chunk that stays; refused: '
    'why not. Without counted, only where to look, and the measurements that the books do not account for.';

CREATE OR REPLACE FUNCTION retention_filter(owner text, tenant text, project text) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE
        WHEN tenant = '' THEN 'true'
        WHEN owner = 'source' THEN format('source_id = ANY (ARRAY(SELECT s.source_id FROM source s WHERE %s))', n.names)
        WHEN owner = 'series' THEN format('series_id = ANY (ARRAY(SELECT s.series_id FROM series s WHERE %s))', n.names)
        WHEN owner = 'names' THEN n.names
        ELSE 'false' END
    FROM (SELECT format('tenant_id = %L', tenant) || CASE project WHEN '' THEN ''
        ELSE format(' AND project_id = %L', project) END AS names) n
$$;
COMMENT ON FUNCTION retention_filter(text, text, text) IS
    'Condition for the rows of a tenant and project (empty: of everybody) in a table of retention_tables, which names its owner this way.';

REVOKE EXECUTE ON FUNCTION retention_plan(timestamptz, boolean) FROM PUBLIC;
