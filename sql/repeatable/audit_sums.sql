-- The audit's sums, beside its two proofs (audit_views.sql, which is applied after this file).
SET LOCAL check_function_bodies = off;

-- Do the sums of accounting_1h equal the stored rows? Of one tenant, or project, or (null) of all, in the hours of the spans.
CREATE OR REPLACE FUNCTION audit_hours(spans tstzmultirange, since timestamptz, tenant text, project text) RETURNS TABLE (
    tenant_id text, project_id text, hour timestamptz, messages bigint, stored_messages bigint, duplicates bigint, stored_duplicates bigint,
    quarantined bigint, stored_quarantined bigint, reasons jsonb, measurements bigint, measurement_duplicates bigint,
    measurement_conflicts bigint,
    difference bigint, problem text)
LANGUAGE plpgsql STABLE SET jit = off SET work_mem = '32MB' AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH mark AS MATERIALIZED (  -- an hour that begins before its mark is not compared: some of its rows, or all, are gone
        SELECT tenant_id, project_id, max(removed_before) FILTER (WHERE table_name = 'message') AS message_mark,
               max(removed_before) FILTER (WHERE table_name = 'quarantine') AS quarantine_mark
        FROM retention_mark WHERE table_name IN ('message', 'quarantine') GROUP BY 1, 2
    ), deleting AS MATERIALIZED (
        SELECT tenant_id FROM tenant_deletion WHERE finished_at IS NULL
    ), span AS MATERIALIZED (
        SELECT greatest(lower(s), coalesce((SELECT least(message_mark, quarantine_mark) FROM mark WHERE tenant_id = ''
                   AND message_mark IS NOT NULL AND quarantine_mark IS NOT NULL) - interval '1 hour', '-infinity')) AS span_from,
                       upper(s) AS span_to
        FROM unnest(spans) s
    ), good AS (
        SELECT coalesce(s.tenant_id, '') AS tenant_id, coalesce(s.project_id, '') AS project_id, m.hour, sum(m.rows)::bigint AS rows,
            sum(m.marked)::bigint AS marked
        FROM (
            SELECT time_bucket('1 hour', m.received_at) AS hour, m.source_id, count(*) AS rows, count(m.duplicate_of) AS marked
            FROM span s JOIN message m ON m.received_at >= s.span_from AND m.received_at < s.span_to GROUP BY 1, 2
        ) m LEFT JOIN source s USING (source_id)
        WHERE NOT (s.source_id IS NULL AND EXISTS (SELECT FROM tenant_deletion_source d WHERE d.source_id = m.source_id))
        GROUP BY 1, 2, 3
    ), bad AS (
        SELECT q.tenant_id, q.project_id, q.hour, sum(q.rows)::bigint AS rows, sum(q.marked)::bigint AS marked,
            jsonb_object_agg(q.reason, q.rows) AS reasons
        FROM (
            SELECT q.tenant_id, q.project_id, time_bucket('1 hour', q.received_at) AS hour, q.reason, count(*) AS rows,
                count(q.duplicate_of) AS marked
            FROM span s JOIN quarantine q ON q.received_at >= s.span_from AND q.received_at < s.span_to GROUP BY 1, 2, 3, 4
        ) q GROUP BY 1, 2, 3
    ), accounted AS (
        SELECT a.tenant_id, a.project_id, a.hour, sum(a.messages)::bigint AS messages, sum(a.duplicates)::bigint AS duplicates,
               sum(a.quarantined)::bigint AS quarantined, sum(a.measurements)::bigint AS measurements,
               sum(a.measurement_duplicates)::bigint AS measurement_duplicates,
               sum(a.measurement_conflicts)::bigint AS measurement_conflicts,
               max(a.last_committed_at) AS committed_at
        FROM span s JOIN accounting_1h a ON a.hour >= s.span_from AND a.hour < s.span_to GROUP BY 1, 2, 3
    ), compared AS (
        SELECT tenant_id, project_id, hour, coalesce(a.messages, 0) AS messages, coalesce(g.rows, 0) AS stored_messages,
               coalesce(a.duplicates, 0) AS duplicates, coalesce(g.marked, 0) + coalesce(b.marked, 0) AS stored_duplicates,
               coalesce(a.quarantined, 0) AS quarantined, coalesce(b.rows, 0) AS stored_quarantined, coalesce(b.reasons, '{}') AS reasons,
               coalesce(a.measurements, 0) AS measurements, coalesce(a.measurement_duplicates, 0) AS measurement_duplicates,
               coalesce(a.measurement_conflicts, 0) AS measurement_conflicts
        FROM accounted a FULL JOIN good g USING (tenant_id, project_id, hour) FULL JOIN bad b USING (tenant_id, project_id, hour)
        -- a stray receive time can span hours that nothing touched, and whose rows are beyond retention
        WHERE (a.committed_at >= since OR g.rows > 0 OR b.rows > 0) AND tenant_id NOT IN (SELECT tenant_id FROM deleting)
          AND (tenant IS NULL OR tenant_id = tenant) AND (project IS NULL OR project_id = project)
    ), judged AS (
        SELECT c.*, c.hour >= k.message_mark AS with_messages, c.hour >= k.quarantine_mark AS with_quarantine
        FROM compared c
        LEFT JOIN mark g ON g.tenant_id = ''
        LEFT JOIN mark t ON t.tenant_id = c.tenant_id AND c.tenant_id <> '' AND t.project_id = ''
        LEFT JOIN mark p ON p.tenant_id = c.tenant_id AND c.tenant_id <> '' AND p.project_id = c.project_id AND c.project_id <> ''
        CROSS JOIN LATERAL (
            SELECT coalesce(greatest(g.message_mark, t.message_mark, p.message_mark), '-infinity') AS message_mark,
                   coalesce(greatest(g.quarantine_mark, t.quarantine_mark, p.quarantine_mark), '-infinity') AS quarantine_mark
        ) k
        WHERE c.hour >= k.message_mark OR c.hour >= k.quarantine_mark
    )
    SELECT c.tenant_id, c.project_id, c.hour, c.messages, c.stored_messages, c.duplicates, c.stored_duplicates, c.quarantined,
        c.stored_quarantined,
           c.reasons, c.measurements, c.measurement_duplicates, c.measurement_conflicts,
           CASE WHEN c.with_messages THEN abs(c.messages - c.stored_messages) ELSE 0 END
               + CASE WHEN c.with_messages AND c.with_quarantine THEN abs(c.duplicates - c.stored_duplicates) ELSE 0 END
               + CASE WHEN c.with_quarantine THEN abs(c.quarantined - c.stored_quarantined) ELSE 0 END,
           nullif(concat_ws(', ',
               CASE WHEN c.with_messages AND c.messages <> c.stored_messages
                   THEN c.messages || ' messages accounted, ' || c.stored_messages || ' stored' END,
               CASE WHEN c.with_messages AND c.with_quarantine AND c.duplicates <> c.stored_duplicates
                    THEN c.duplicates || ' duplicates accounted, ' || c.stored_duplicates || ' stored' END,
               CASE WHEN c.with_quarantine AND c.quarantined <> c.stored_quarantined
                    THEN c.quarantined || ' quarantined accounted, ' || c.stored_quarantined || ' stored' END), '')
    FROM judged c;
END
$$;
COMMENT ON FUNCTION audit_hours(tstzmultirange, timestamptz, text, text) IS
    'One row for each tenant, project and hour of receipt (UTC) in the spans: counters of accounting_1h and the rows that are stored. '
    'What retention took is not compared.';

CREATE OR REPLACE FUNCTION audit_hours(since timestamptz) RETURNS TABLE (
    tenant_id text, project_id text, hour timestamptz, messages bigint, stored_messages bigint, duplicates bigint, stored_duplicates bigint,
    quarantined bigint, stored_quarantined bigint, reasons jsonb, measurements bigint, measurement_duplicates bigint,
    measurement_conflicts bigint,
    difference bigint, problem text)
LANGUAGE sql STABLE AS $$
    SELECT * FROM audit_hours((SELECT coalesce(range_agg(tstzrange(s.span_from, s.span_to)), '{}') FROM audit_span(since) s), since, NULL,
        NULL)
$$;
COMMENT ON FUNCTION audit_hours(timestamptz) IS
    'One row for each tenant, project and hour of receipt (UTC) that batches committed since touched: counters of accounting_1h and the '
    'rows that are stored.';

-- Measurements carry no receive time, so they are compared as sums since the beginning; retention_sum says what retention took.
CREATE OR REPLACE FUNCTION audit_measurements() RETURNS TABLE (tenant_id text, project_id text, accounted bigint, stored bigint,
    problem text)
LANGUAGE plpgsql STABLE SET jit = off AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT tenant_id, project_id, coalesce(a.rows, 0) + coalesce(r.accounted, 0), coalesce(m.rows, 0) + coalesce(r.measurements, 0),
           CASE WHEN coalesce(a.rows, 0) + coalesce(r.accounted, 0) <> coalesce(m.rows, 0) + coalesce(r.measurements, 0)
                THEN coalesce(a.rows, 0) + coalesce(r.accounted, 0) || ' measurements accounted, ' || coalesce(m.rows, 0) || ' stored'
                    || CASE WHEN r.measurements <> 0 THEN ' and ' || r.measurements || ' removed by retention' ELSE '' END END
    FROM (SELECT tenant_id, project_id, sum(measurements)::bigint AS rows FROM accounting_1h GROUP BY 1, 2 HAVING sum(measurements) <> 0) a
    FULL JOIN (
        SELECT s.tenant_id, s.project_id, sum(c.rows)::bigint AS rows
        FROM (SELECT series_id, count(*) AS rows FROM measurement GROUP BY 1) c JOIN series s USING (series_id) GROUP BY 1, 2
    ) m USING (tenant_id, project_id)
    FULL JOIN retention_sum r USING (tenant_id, project_id)
    WHERE tenant_id NOT IN (SELECT d.tenant_id FROM tenant_deletion d WHERE d.finished_at IS NULL);
END
$$;
COMMENT ON FUNCTION audit_measurements() IS
    'One row for each project: measurements accounted since the beginning, and those that are stored or that retention removed. Reads '
    'the whole table.';
