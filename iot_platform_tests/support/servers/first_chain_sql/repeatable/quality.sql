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

-- 5 usual intervals and some deviations. A project's many devices may send in step, which makes the deviation large: there three times the
-- longest interval is enough, which does not happen by chance either.
CREATE OR REPLACE FUNCTION quality_silence(of_project boolean, weight double precision, gaps double precision, squares double precision,
    longest double precision, deviations double precision) RETURNS double precision
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN of_project THEN greatest(5 * m.mean, least(5 * m.mean + deviations * m.deviation, 3 * longest)) ELSE 5 * m.mean + deviations * m.deviation END
    FROM (SELECT gaps / greatest(weight, 1) AS mean, sqrt(greatest(squares / greatest(weight, 1) - (gaps / greatest(weight, 1)) ^ 2, 0)) AS deviation) m
$$;
COMMENT ON FUNCTION quality_silence(boolean, double precision, double precision, double precision, double precision, double precision) IS
    'Seconds of silence that are too long for a row of quality_cadence, pauses aside.';

-- Half an hour of leeway around midnight. A weekday without a pause of its own takes the shortest of the others.
CREATE OR REPLACE FUNCTION quality_pause_seconds(of_tenant text, of_project text, of_device text, since timestamptz) RETURNS double precision
LANGUAGE sql STABLE AS $$
    SELECT coalesce(max(p.seconds) FILTER (WHERE p.weekday IN (extract(isodow FROM (since - interval '30 minutes') AT TIME ZONE 'UTC'),
        extract(isodow FROM (since + interval '30 minutes') AT TIME ZONE 'UTC'))), min(p.seconds), 0)
    FROM quality_pause p
    WHERE p.tenant_id = of_tenant AND p.project_id = of_project AND p.device_id = of_device AND p.begun_at >= since - interval '22 days'
$$;
COMMENT ON FUNCTION quality_pause_seconds(text, text, text, timestamptz) IS 'How long a pause that begins then usually is; 0: none is known. Device #: the project.';

CREATE OR REPLACE FUNCTION quality_habit(age interval) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN age >= interval '8 days' THEN 2 WHEN age >= interval '3 days' THEN 4 END
$$;
COMMENT ON FUNCTION quality_habit(interval) IS 'How many pauses of a device or project known for so long are a habit; null: it is too new for one.';
