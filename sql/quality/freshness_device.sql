-- Silent devices: longer than 5 of their usual intervals plus so many deviations. Where nearly all devices of a project fell silent at once,
-- it is one finding: their network or broker, not each of them.
WITH usual AS (
    SELECT k.*, k.gaps / k.weight AS mean, sqrt(greatest(k.squares / k.weight - (k.gaps / k.weight) ^ 2, 0)) AS deviation,
           extract(epoch FROM %(horizon)s - greatest(k.last_received_at, CASE WHEN i.incident_id IS NULL THEN %(live_since)s::timestamptz END))::double precision AS silent
    FROM quality_cadence k
    LEFT JOIN quality_incident i ON i.rule = 'freshness_device' AND i.closed_at IS NULL AND i.metric = ''
        AND i.tenant_id = k.tenant_id AND i.project_id = k.project_id AND i.device_id = k.device_id
    WHERE k.weight >= 5
), limited AS (
    SELECT u.*, s.severity, s.clear_seconds, s.hold_seconds,
           greatest(s.window_seconds, 5 * u.mean + s.threshold * u.deviation, CASE WHEN u.pauses >= 4 AND u.last_received_at - u.first_received_at >= interval '3 days' THEN 1.5 * u.pause_seconds ELSE 0 END) AS most
    FROM usual u
    CROSS JOIN LATERAL quality_setting('freshness_device', u.tenant_id, u.project_id, '') s
    WHERE u.silent > 5 * u.mean AND u.silent > (SELECT min(r.window_seconds) FROM quality_rule r WHERE r.rule = 'freshness_device')
      AND s.enabled AND s.threshold IS NOT NULL AND u.messages >= (s.parameters ->> 'least_messages')::double precision
), silent AS (
    SELECT l.*, count(*) OVER (PARTITION BY l.tenant_id, l.project_id) AS together FROM limited l
    WHERE l.silent > l.most AND extract(epoch FROM l.last_received_at - l.first_received_at) >= 3 * l.most
), project AS (  -- only those with many silent devices
    SELECT k.tenant_id, k.project_id, count(*) AS devices FROM quality_cadence k
    WHERE (k.tenant_id, k.project_id) IN (SELECT s.tenant_id, s.project_id FROM silent s WHERE s.together >= 10) GROUP BY 1, 2
), apart AS (
    SELECT s.*, p.devices, coalesce(s.together > 0.8 * p.devices, false) AS all_at_once FROM silent s LEFT JOIN project p USING (tenant_id, project_id)
)
INSERT INTO quality_found (tenant_id, project_id, device_id, metric, failed, value, threshold, window_from, window_to, message, example,
    kafka_partition, kafka_offset, severity, clear_seconds, hold_seconds)
SELECT a.tenant_id, a.project_id, a.device_id, '', true, round(a.silent), round(a.most), a.last_received_at, %(horizon)s,
       'silent for ' || round(a.silent) || ' s; it usually sends every ' || round(a.mean::numeric, 1) || ' s',
       jsonb_build_object('last_received_at', a.last_received_at, 'usual_seconds', round(a.mean::numeric, 1), 'deviation_seconds', round(a.deviation::numeric, 1)),
       a.last_partition, a.last_offset, a.severity, a.clear_seconds, a.hold_seconds
FROM apart a WHERE NOT a.all_at_once
UNION ALL
SELECT a.tenant_id, a.project_id, '', '*', true, count(*), 0.8 * max(a.devices), min(a.last_received_at), %(horizon)s,
       count(*) || ' of ' || max(a.devices) || ' devices fell silent at once: their network, the broker or the ingest daemon?',
       jsonb_build_object('devices', (array_agg(a.device_id ORDER BY a.last_received_at DESC))[1:10]),
       (array_agg(a.last_partition ORDER BY a.last_received_at DESC))[1], (array_agg(a.last_offset ORDER BY a.last_received_at DESC))[1],
       max(a.severity), max(a.clear_seconds), max(a.hold_seconds)
FROM apart a WHERE a.all_at_once
GROUP BY a.tenant_id, a.project_id
ON CONFLICT DO NOTHING
