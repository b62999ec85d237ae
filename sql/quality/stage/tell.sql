-- One result when an incident begins, and one each hour while it lasts.
WITH told AS (
    UPDATE quality_incident i SET told_at = %(horizon)s
    FROM quality_found f
    WHERE f.failed AND i.rule = %(rule)s AND i.closed_at IS NULL AND i.told_at <= %(horizon)s::timestamptz - interval '1 hour'
      AND f.tenant_id = i.tenant_id AND f.project_id = i.project_id AND f.device_id = i.device_id AND f.metric = i.metric
    RETURNING i.*, f.window_from, f.window_to
)
INSERT INTO quality_result (evaluated_at, incident_id, window_from, window_to, kafka_offset, value, threshold, kafka_partition, rule,
    tenant_id,
    project_id, device_id, metric, status, message, example)
SELECT %(horizon)s, t.incident_id, t.window_from, t.window_to, t.kafka_offset, t.value, t.threshold, t.kafka_partition, t.rule, t.tenant_id,
       t.project_id, t.device_id, t.metric, t.severity, t.message, t.example
FROM told t
