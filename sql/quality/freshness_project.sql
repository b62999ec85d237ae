-- Silent projects: longer than so many of the usual intervals between messages of any of its devices.
WITH usual AS (
    SELECT k.*, k.gaps / k.weight AS mean, sqrt(greatest(k.squares / k.weight - (k.gaps / k.weight) ^ 2, 0)) AS deviation
    FROM quality_cadence k WHERE k.weight >= 5
), project AS (
    SELECT u.tenant_id, u.project_id, max(u.last_received_at) AS last_received_at, min(u.first_received_at) AS first_received_at,
           sum(u.messages) AS messages, 1 / sum(1 / greatest(u.mean, 0.001)) AS mean, min(5 * u.mean + 16 * u.deviation) AS least,
           CASE WHEN min(u.pauses) >= 4 AND max(u.last_received_at) - min(u.first_received_at) >= interval '3 days' THEN 1.5 * min(u.pause_seconds) ELSE 0 END AS pause,
           (array_agg(u.last_partition ORDER BY u.last_received_at DESC))[1] AS last_partition,
           (array_agg(u.last_offset ORDER BY u.last_received_at DESC))[1] AS last_offset
    FROM usual u GROUP BY 1, 2
), limited AS (
    SELECT p.*, s.severity, s.clear_seconds, s.hold_seconds, extract(epoch FROM %(horizon)s - greatest(p.last_received_at, CASE WHEN i.incident_id IS NULL THEN %(live_since)s::timestamptz END))::double precision AS silent,
           greatest(s.window_seconds, least(s.threshold * p.mean, p.least), p.pause) AS most
    FROM project p
    LEFT JOIN quality_incident i ON i.rule = 'freshness_project' AND i.closed_at IS NULL AND i.tenant_id = p.tenant_id AND i.project_id = p.project_id
    CROSS JOIN LATERAL quality_setting('freshness_project', p.tenant_id, p.project_id, '') s
    WHERE p.last_received_at < %(horizon)s::timestamptz - (SELECT min(r.window_seconds) FROM quality_rule r WHERE r.rule = 'freshness_project') * interval '1 second'
      AND s.enabled AND s.threshold IS NOT NULL AND p.messages >= (s.parameters ->> 'least_messages')::double precision
)
INSERT INTO quality_found (tenant_id, project_id, device_id, metric, failed, value, threshold, window_from, window_to, message, example,
    kafka_partition, kafka_offset, severity, clear_seconds, hold_seconds)
SELECT l.tenant_id, l.project_id, '', '', true, round(l.silent), round(l.most), l.last_received_at, %(horizon)s,
       'the whole project is silent for ' || round(l.silent) || ' s; usually there is a message every ' || round(l.mean::numeric, 1) || ' s',
       jsonb_build_object('last_received_at', l.last_received_at, 'usual_seconds', round(l.mean::numeric, 1)),
       l.last_partition, l.last_offset, l.severity, l.clear_seconds, l.hold_seconds
FROM limited l
WHERE l.silent > l.most AND extract(epoch FROM l.last_received_at - l.first_received_at) >= 3 * l.most
ON CONFLICT DO NOTHING
