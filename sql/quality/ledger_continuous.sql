-- Ranges of the ledger that do not join, among the batches since the last evaluation and as far back as an open incident.
WITH since AS (
    SELECT least(%(since)s::timestamptz, (
        SELECT greatest(min(i.opened_at), %(horizon)s::timestamptz - interval '7 days') FROM quality_incident i
            WHERE i.rule = 'ledger_continuous' AND i.closed_at IS NULL
    )) - interval '1 hour' AS since
), problem AS (
    SELECT a.kafka_topic, a.kafka_partition, sum(a.to_offset - a.from_offset) AS offsets, min(a.from_offset) AS from_offset,
           (array_agg(a.problem ORDER BY a.from_offset))[1] AS problem, count(*) AS rows
    FROM since s CROSS JOIN LATERAL audit_ranges(s.since) a WHERE a.problem IS NOT NULL GROUP BY 1, 2
)
INSERT INTO quality_found (tenant_id, project_id, device_id, metric, failed, value, threshold, window_from, window_to, message, example,
    kafka_partition, kafka_offset, severity, clear_seconds, hold_seconds)
SELECT '', '', '', p.kafka_topic || '/' || p.kafka_partition, true, abs(p.offsets), t.threshold, s.since, %(horizon)s, p.problem
           || CASE WHEN p.rows > 1 THEN ', and ' || p.rows - 1 || ' more' ELSE '' END || ' (`iot audit` names all)',
       jsonb_build_object('kafka_topic', p.kafka_topic, 'from_offset', p.from_offset), p.kafka_partition, p.from_offset, t.severity,
       t.clear_seconds, t.hold_seconds
FROM problem p
CROSS JOIN since s
CROSS JOIN LATERAL quality_setting('ledger_continuous', '', '', '') t
WHERE t.enabled AND abs(p.offsets) > t.threshold
ON CONFLICT DO NOTHING
