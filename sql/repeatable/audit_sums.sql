-- The audit's sums, beside its two proofs (audit_views.sql).

-- Do the sums of accounting_1h equal the stored rows?
CREATE OR REPLACE FUNCTION audit_hours(since timestamptz) RETURNS TABLE (
    tenant_id text, project_id text, hour timestamptz, messages bigint, stored_messages bigint, duplicates bigint, stored_duplicates bigint,
    quarantined bigint, stored_quarantined bigint, reasons jsonb, measurements bigint, measurement_duplicates bigint, measurement_conflicts bigint,
    difference bigint, problem text)
LANGUAGE plpgsql STABLE SET jit = off SET work_mem = '32MB' AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH good AS (
        SELECT coalesce(s.tenant_id, '') AS tenant_id, coalesce(s.project_id, '') AS project_id, m.hour, sum(m.rows)::bigint AS rows, sum(m.marked)::bigint AS marked
        FROM (
            SELECT time_bucket('1 hour', m.received_at) AS hour, m.source_id, count(*) AS rows, count(m.duplicate_of) AS marked
            FROM audit_span(since) s JOIN message m ON m.received_at >= s.span_from AND m.received_at < s.span_to GROUP BY 1, 2
        ) m LEFT JOIN source s USING (source_id) GROUP BY 1, 2, 3
    ), bad AS (
        SELECT q.tenant_id, q.project_id, q.hour, sum(q.rows)::bigint AS rows, sum(q.marked)::bigint AS marked, jsonb_object_agg(q.reason, q.rows) AS reasons
        FROM (
            SELECT q.tenant_id, q.project_id, time_bucket('1 hour', q.received_at) AS hour, q.reason, count(*) AS rows, count(q.duplicate_of) AS marked
            FROM audit_span(since) s JOIN quarantine q ON q.received_at >= s.span_from AND q.received_at < s.span_to GROUP BY 1, 2, 3, 4
        ) q GROUP BY 1, 2, 3
    ), accounted AS (
        SELECT a.tenant_id, a.project_id, a.hour, sum(a.messages)::bigint AS messages, sum(a.duplicates)::bigint AS duplicates,
               sum(a.quarantined)::bigint AS quarantined, sum(a.measurements)::bigint AS measurements,
               sum(a.measurement_duplicates)::bigint AS measurement_duplicates, sum(a.measurement_conflicts)::bigint AS measurement_conflicts,
               max(a.last_committed_at) AS committed_at
        FROM audit_span(since) s JOIN accounting_1h a ON a.hour >= s.span_from AND a.hour < s.span_to GROUP BY 1, 2, 3
    ), compared AS (
        SELECT tenant_id, project_id, hour, coalesce(a.messages, 0) AS messages, coalesce(g.rows, 0) AS stored_messages,
               coalesce(a.duplicates, 0) AS duplicates, coalesce(g.marked, 0) + coalesce(b.marked, 0) AS stored_duplicates,
               coalesce(a.quarantined, 0) AS quarantined, coalesce(b.rows, 0) AS stored_quarantined, coalesce(b.reasons, '{}') AS reasons,
               coalesce(a.measurements, 0) AS measurements, coalesce(a.measurement_duplicates, 0) AS measurement_duplicates,
               coalesce(a.measurement_conflicts, 0) AS measurement_conflicts
        FROM accounted a FULL JOIN good g USING (tenant_id, project_id, hour) FULL JOIN bad b USING (tenant_id, project_id, hour)
        -- a stray receive time can span hours that nothing touched, and whose rows are beyond retention
        WHERE a.committed_at >= since OR g.rows > 0 OR b.rows > 0
    )
    SELECT c.*, abs(c.messages - c.stored_messages) + abs(c.duplicates - c.stored_duplicates) + abs(c.quarantined - c.stored_quarantined),
           nullif(concat_ws(', ',
               CASE WHEN c.messages <> c.stored_messages THEN c.messages || ' messages accounted, ' || c.stored_messages || ' stored' END,
               CASE WHEN c.duplicates <> c.stored_duplicates THEN c.duplicates || ' duplicates accounted, ' || c.stored_duplicates || ' stored' END,
               CASE WHEN c.quarantined <> c.stored_quarantined THEN c.quarantined || ' quarantined accounted, ' || c.stored_quarantined || ' stored' END), '')
    FROM compared c;
END
$$;
COMMENT ON FUNCTION audit_hours(timestamptz) IS
    'One row for each tenant, project and hour of receipt (UTC) that batches committed since touched: counters of accounting_1h and the rows that are stored.';

-- Measurements carry no receive time, so they are compared as sums since the beginning.
CREATE OR REPLACE FUNCTION audit_measurements() RETURNS TABLE (tenant_id text, project_id text, accounted bigint, stored bigint, problem text)
LANGUAGE plpgsql STABLE SET jit = off AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT tenant_id, project_id, coalesce(a.rows, 0), coalesce(m.rows, 0),
           CASE WHEN coalesce(a.rows, 0) <> coalesce(m.rows, 0)
                THEN coalesce(a.rows, 0) || ' measurements accounted, ' || coalesce(m.rows, 0) || ' stored' END
    FROM (SELECT tenant_id, project_id, sum(measurements)::bigint AS rows FROM accounting_1h GROUP BY 1, 2 HAVING sum(measurements) <> 0) a
    FULL JOIN (
        SELECT s.tenant_id, s.project_id, sum(c.rows)::bigint AS rows
        FROM (SELECT series_id, count(*) AS rows FROM measurement GROUP BY 1) c JOIN series s USING (series_id) GROUP BY 1, 2
    ) m USING (tenant_id, project_id);
END
$$;
COMMENT ON FUNCTION audit_measurements() IS 'One row for each project: measurements accounted and stored since the beginning. Reads the whole table.';
