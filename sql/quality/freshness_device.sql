-- Silent devices: longer than 5 of their usual intervals plus so many deviations. Where nearly all devices of a project fell silent at
-- once, it is one finding: their network or broker, not each of them. A device that is silent for gone_days is gone: its incident ends, and
-- no other begins until it sends again.
WITH usual AS (
    SELECT k.*, k.gaps / k.weight AS mean, sqrt(greatest(k.squares / k.weight - (k.gaps / k.weight) ^ 2, 0)) AS deviation, i.incident_id,
           extract(epoch FROM %(horizon)s - greatest(k.last_received_at, CASE WHEN i.incident_id IS NULL
               THEN %(live_since)s::timestamptz END))::double precision AS silent
    FROM quality_cadence k
    LEFT JOIN quality_incident i ON i.rule = 'freshness_device' AND i.closed_at IS NULL AND i.metric = ''
        AND i.tenant_id = k.tenant_id AND i.project_id = k.project_id AND i.device_id = k.device_id
    WHERE k.weight >= 5 AND k.device_id <> '#'
), limited AS (
    SELECT u.*, s.severity, s.clear_seconds, s.hold_seconds, (s.parameters ->> 'gone_days')::double precision * 86400 AS gone,
           greatest(s.window_seconds, quality_silence(false, u.weight, u.gaps, u.squares, u.longest_seconds, s.threshold),
               CASE WHEN u.pauses >= quality_habit(u.last_received_at - u.first_received_at)
                    THEN 1.5 * quality_pause_seconds(u.tenant_id, u.project_id, u.device_id, u.last_received_at) END) AS most
    FROM usual u
    CROSS JOIN LATERAL quality_setting('freshness_device', u.tenant_id, u.project_id, '') s
    WHERE u.silent > 5 * u.mean AND u.silent > (SELECT min(r.window_seconds) FROM quality_rule r WHERE r.rule = 'freshness_device')
      AND s.enabled AND s.threshold IS NOT NULL AND u.messages >= (s.parameters ->> 'least_messages')::double precision
), silent AS (
    SELECT l.*, count(*) OVER (PARTITION BY l.tenant_id, l.project_id, l.is_gone) AS together FROM (
        SELECT l.*, coalesce(l.last_received_at < %(horizon)s::timestamptz - greatest(l.gone, 2 * l.most) * interval '1 second',
            false) AS is_gone FROM limited l
    ) l
    WHERE l.silent > l.most AND extract(epoch FROM l.last_received_at - l.first_received_at) >= 3 * l.most
), project AS (  -- only those with many silent devices
    SELECT p.tenant_id, p.project_id, count(*) AS devices
    FROM (SELECT s.tenant_id, s.project_id, max(s.gone) AS gone FROM silent s WHERE s.together >= 10 AND NOT s.is_gone GROUP BY 1, 2) p
    JOIN quality_cadence k USING (tenant_id, project_id)
    WHERE k.device_id <> '#' AND (p.gone IS NULL OR k.last_received_at >= %(horizon)s::timestamptz - p.gone * interval '1 second')
        GROUP BY 1, 2
), apart AS (
    SELECT s.*, p.devices, coalesce(s.together > 0.8 * p.devices, false) AS all_at_once
    FROM silent s LEFT JOIN project p USING (tenant_id, project_id) WHERE NOT s.is_gone
)
INSERT INTO quality_found (tenant_id, project_id, device_id, metric, failed, value, threshold, window_from, window_to, message, example,
    kafka_partition, kafka_offset, severity, clear_seconds, hold_seconds)
SELECT a.tenant_id, a.project_id, a.device_id, '', true, round(a.silent), round(a.most), a.last_received_at, %(horizon)s,
       'silent for ' || round(a.silent) || ' s; it usually sends every ' || round(a.mean::numeric, 1) || ' s',
       jsonb_build_object('last_received_at', a.last_received_at, 'usual_seconds', round(a.mean::numeric, 1), 'deviation_seconds',
           round(a.deviation::numeric, 1)),
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
UNION ALL
SELECT s.tenant_id, s.project_id, s.device_id, '', false, round(s.silent), round(s.most), s.last_received_at, %(horizon)s,
       'gone: silent since ' || to_char(s.last_received_at AT TIME ZONE 'UTC',
           'YYYY-MM-DD HH24:MI') || ' UTC; not looked at until it sends again', NULL,
       s.last_partition, s.last_offset, s.severity, s.clear_seconds, s.hold_seconds
FROM silent s WHERE s.is_gone AND s.incident_id IS NOT NULL
UNION ALL
SELECT i.tenant_id, i.project_id, '', '*', false, s.devices, i.threshold, s.since, %(horizon)s,
    'gone: none of ' || s.devices || ' devices came back', NULL,
       NULL, NULL, i.severity, i.clear_seconds, i.hold_seconds
FROM quality_incident i
JOIN (SELECT s.tenant_id, s.project_id, count(*) AS devices, min(s.last_received_at) AS since FROM silent s WHERE s.is_gone GROUP BY 1, 2) s
    USING (tenant_id, project_id)
WHERE i.rule = 'freshness_device' AND i.metric = '*' AND i.closed_at IS NULL AND s.devices >= 10
  AND NOT EXISTS (SELECT FROM apart a WHERE a.tenant_id = i.tenant_id AND a.project_id = i.project_id)
ON CONFLICT DO NOTHING
