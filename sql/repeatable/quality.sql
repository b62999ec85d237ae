-- Settings of a rule for one tenant, project and metric: of each column the most specific value that is not null.
CREATE OR REPLACE FUNCTION quality_setting(rule_name text, of_tenant text, of_project text, of_metric text) RETURNS TABLE (
    enabled boolean, severity text, threshold double precision, window_seconds integer, clear_seconds integer, hold_seconds integer,
    parameters jsonb)
LANGUAGE sql STABLE AS $$
    WITH fitting AS (
        SELECT r.*, (r.metric <> '')::int * 4 + (r.project_id <> '')::int * 2 + (r.tenant_id <> '')::int AS specific
        FROM quality_rule r
        WHERE r.rule = rule_name AND r.tenant_id IN ('', of_tenant) AND r.project_id IN ('', of_project) AND r.metric IN ('', of_metric)
    )
    SELECT coalesce((array_agg(f.enabled ORDER BY f.specific DESC) FILTER (WHERE f.enabled IS NOT NULL))[1], false),
           (array_agg(f.severity ORDER BY f.specific DESC) FILTER (WHERE f.severity IS NOT NULL))[1],
           (array_agg(f.threshold ORDER BY f.specific DESC) FILTER (WHERE f.threshold IS NOT NULL))[1],
           (array_agg(f.window_seconds ORDER BY f.specific DESC) FILTER (WHERE f.window_seconds IS NOT NULL))[1],
           (array_agg(f.clear_seconds ORDER BY f.specific DESC) FILTER (WHERE f.clear_seconds IS NOT NULL))[1],
           (array_agg(f.hold_seconds ORDER BY f.specific DESC) FILTER (WHERE f.hold_seconds IS NOT NULL))[1],
           coalesce((SELECT jsonb_object_agg(e.key, e.value ORDER BY g.specific) FROM fitting g, jsonb_each(g.parameters) e), '{}')
    FROM fitting f
$$;
COMMENT ON FUNCTION quality_setting(text, text, text, text) IS 'The settings of a quality rule that apply to a tenant, project and metric.';

CREATE OR REPLACE VIEW quality_named AS
SELECT r.evaluated_at, r.rule, r.status, r.tenant_id, r.project_id, r.device_id, r.metric, r.message, r.value, r.threshold, r.window_from,
       r.window_to, r.example, r.kafka_partition, r.kafka_offset, r.incident_id, i.opened_at, i.closed_at, i.flaps
FROM quality_result r
LEFT JOIN quality_incident i USING (incident_id);
COMMENT ON VIEW quality_named IS 'One row is one finding of one quality rule, with the incident it belongs to.';

CREATE OR REPLACE VIEW quality_open AS
SELECT i.opened_at, i.rule, i.severity, i.tenant_id, i.project_id, i.device_id, i.metric, i.message, i.value, i.threshold, i.last_seen_at,
       i.flaps, i.evaluations, i.example, i.kafka_partition, i.kafka_offset, i.incident_id
FROM quality_incident i
WHERE i.closed_at IS NULL;
COMMENT ON VIEW quality_open IS 'One row is one quality incident that has not ended.';
