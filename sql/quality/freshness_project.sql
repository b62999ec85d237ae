-- Silent projects: longer than they usually are, learnt from all their messages together (device # of quality_cadence), because devices
-- may report in step. One that is silent for gone_days is gone, as devices are.
WITH usual AS (
    SELECT k.*, k.gaps / k.weight AS mean, i.incident_id,
           extract(epoch FROM %(horizon)s - greatest(k.last_received_at, CASE WHEN i.incident_id IS NULL
               THEN %(live_since)s::timestamptz END))::double precision AS silent
    FROM quality_cadence k
    LEFT JOIN quality_incident i ON i.rule = 'freshness_project' AND i.closed_at IS NULL AND i.tenant_id = k.tenant_id
        AND i.project_id = k.project_id
    WHERE k.device_id = '#' AND k.weight >= 5
      AND k.last_received_at < %(horizon)s::timestamptz - (SELECT min(r.window_seconds) FROM quality_rule r
          WHERE r.rule = 'freshness_project') * interval '1 second'
), limited AS (
    SELECT u.*, s.severity, s.clear_seconds, s.hold_seconds, (s.parameters ->> 'gone_days')::double precision * 86400 AS gone,
           greatest(s.window_seconds, quality_silence(true, u.weight, u.gaps, u.squares, u.longest_seconds, s.threshold),
               CASE WHEN u.pauses >= quality_habit(u.last_received_at - u.first_received_at)
                    THEN 1.5 * quality_pause_seconds(u.tenant_id, u.project_id, '#', u.last_received_at) END) AS most
    FROM usual u
    CROSS JOIN LATERAL quality_setting('freshness_project', u.tenant_id, u.project_id, '') s
    WHERE s.enabled AND s.threshold IS NOT NULL AND u.messages >= (s.parameters ->> 'least_messages')::double precision
), silent AS (
    SELECT l.*, coalesce(l.last_received_at < %(horizon)s::timestamptz - greatest(l.gone, 2 * l.most) * interval '1 second',
        false) AS is_gone
    FROM limited l WHERE l.silent > l.most AND extract(epoch FROM l.last_received_at - l.first_received_at) >= 3 * l.most
)
INSERT INTO quality_found (tenant_id, project_id, device_id, metric, failed, value, threshold, window_from, window_to, message, example,
    kafka_partition, kafka_offset, severity, clear_seconds, hold_seconds)
SELECT s.tenant_id, s.project_id, '', '', NOT s.is_gone, round(s.silent), round(s.most), s.last_received_at, %(horizon)s,
       CASE WHEN s.is_gone
            THEN 'gone: silent since ' || to_char(s.last_received_at AT TIME ZONE 'UTC',
                'YYYY-MM-DD HH24:MI') || ' UTC; not looked at until it sends again'
            ELSE 'the whole project is silent for ' || round(s.silent) || ' s; usually there is a message every ' || round(s.mean::numeric,
                1) || ' s' END,
       jsonb_build_object('last_received_at', s.last_received_at, 'usual_seconds', round(s.mean::numeric, 1)),
       s.last_partition, s.last_offset, s.severity, s.clear_seconds, s.hold_seconds
FROM silent s WHERE NOT s.is_gone OR s.incident_id IS NOT NULL
ON CONFLICT DO NOTHING
