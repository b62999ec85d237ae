INSERT INTO quality_incident (rule, tenant_id, project_id, device_id, metric, opened_at, last_seen_at, told_at, severity, clear_seconds,
    hold_seconds, value, threshold, message, example, kafka_partition, kafka_offset)
SELECT %(rule)s, f.tenant_id, f.project_id, f.device_id, f.metric, %(horizon)s, %(horizon)s, '-infinity', f.severity, f.clear_seconds,
       f.hold_seconds, f.value, f.threshold, f.message, f.example, f.kafka_partition, f.kafka_offset
FROM quality_found f
WHERE f.failed AND NOT EXISTS (
    SELECT FROM quality_incident i
    WHERE i.rule = %(rule)s AND i.tenant_id = f.tenant_id AND i.project_id = f.project_id AND i.device_id = f.device_id
        AND i.metric = f.metric
      AND i.closed_at IS NULL
)
