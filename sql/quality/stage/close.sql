-- Seen to be good, or not seen to fail for long enough; each with a result that says so. Of what is gone the incident says so itself.
WITH closed AS (
    UPDATE quality_incident i SET closed_at = %(horizon)s, told_at = %(horizon)s, message = coalesce((
            SELECT f.message FROM quality_found f WHERE NOT f.failed AND f.message LIKE 'gone: %%' AND i.rule LIKE 'freshness%%'
              AND f.tenant_id = i.tenant_id AND f.project_id = i.project_id AND f.device_id = i.device_id AND f.metric = i.metric),
                  i.message)
    WHERE i.rule = %(rule)s AND i.closed_at IS NULL AND (
        EXISTS (
            SELECT FROM quality_found f WHERE NOT f.failed
              AND f.tenant_id = i.tenant_id AND f.project_id = i.project_id AND f.device_id = i.device_id AND f.metric = i.metric)
        OR (i.last_seen_at < %(horizon)s AND i.last_seen_at <= %(horizon)s::timestamptz - i.clear_seconds * interval '1 second')
    )
    RETURNING i.*
)
INSERT INTO quality_result (evaluated_at, incident_id, window_from, window_to, kafka_offset, value, threshold, kafka_partition, rule,
    tenant_id,
    project_id, device_id, metric, status, message, example)
SELECT %(horizon)s, c.incident_id, c.last_seen_at, %(horizon)s, NULL, f.value, f.threshold, NULL, c.rule, c.tenant_id, c.project_id,
       c.device_id, c.metric, 'OK', coalesce(f.message, 'no longer'), f.example
FROM closed c
LEFT JOIN quality_found f ON f.tenant_id = c.tenant_id AND f.project_id = c.project_id AND f.device_id = c.device_id AND f.metric = c.metric
