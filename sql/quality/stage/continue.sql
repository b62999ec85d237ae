-- Failing again: the open incident goes on; one that closed within its hold time is opened again.
UPDATE quality_incident i SET
    closed_at = NULL, last_seen_at = %(horizon)s, evaluations = i.evaluations + 1, flaps = i.flaps + (i.closed_at IS NOT NULL)::integer,
    told_at = CASE WHEN i.closed_at IS NULL THEN i.told_at ELSE '-infinity' END, severity = f.severity, clear_seconds = f.clear_seconds,
    hold_seconds = f.hold_seconds, value = f.value, threshold = f.threshold, message = f.message, example = f.example,
    kafka_partition = coalesce(f.kafka_partition, i.kafka_partition), kafka_offset = coalesce(f.kafka_offset, i.kafka_offset)
FROM quality_found f
CROSS JOIN LATERAL (
    SELECT o.incident_id FROM quality_incident o
    WHERE o.rule = %(rule)s AND o.tenant_id = f.tenant_id AND o.project_id = f.project_id AND o.device_id = f.device_id
        AND o.metric = f.metric
      AND (o.closed_at IS NULL OR o.closed_at >= %(horizon)s::timestamptz - f.hold_seconds * interval '1 second')
    ORDER BY o.closed_at DESC NULLS FIRST LIMIT 1
) last
WHERE f.failed AND i.incident_id = last.incident_id
