-- Devices that sent much less than they usually do in an interval that is over. Each interval is judged once, a minute after its end.
WITH rule AS (
    SELECT r.window_seconds * interval '1 second' AS width, (w.state ->> 'until')::timestamptz AS until
    FROM quality_rule r JOIN quality_watermark w USING (rule)
    WHERE r.rule = 'completeness' AND r.tenant_id = '' AND r.metric = ''
), edge AS (
    SELECT r.width, time_bucket(r.width, %(horizon)s::timestamptz - interval '60 seconds') AS until, r.until AS judged FROM rule r
), bucket AS (  -- after a long pause only the last three
    SELECT b AS begins, b + e.width AS ends FROM edge e
    CROSS JOIN LATERAL generate_series(greatest(e.judged, e.until - 3 * e.width), e.until - e.width, e.width) b
    WHERE e.judged IS NOT NULL
), remembered AS (
    UPDATE quality_watermark w SET state = w.state || jsonb_build_object('until', greatest(e.until, e.judged)) FROM edge e
        WHERE w.rule = 'completeness'
), received AS (
    SELECT b.begins, c.tenant_id, c.project_id, c.device_id, sum(m.messages) AS messages
    FROM bucket b
    CROSS JOIN LATERAL (
        SELECT m.source_id, count(*) AS messages FROM message m
        WHERE m.received_at >= b.begins AND m.received_at < b.ends AND m.duplicate_of IS NULL GROUP BY 1
    ) m
    JOIN source c USING (source_id)
    GROUP BY 1, 2, 3, 4
), usual AS (
    SELECT k.*, k.gaps / k.weight AS mean, sqrt(greatest(k.squares / k.weight - (k.gaps / k.weight) ^ 2, 0)) AS deviation
    FROM quality_cadence k WHERE k.weight >= 20 AND k.gaps > 0 AND k.pauses < 3 AND k.device_id <> '#'
), compared AS (
    SELECT u.*, b.begins, b.ends, extract(epoch FROM b.ends - b.begins)::double precision / u.mean AS expected,
        coalesce(r.messages, 0) AS received
    FROM bucket b
    JOIN usual u ON u.first_received_at <= b.begins AND u.last_received_at >= b.begins - interval '7 days'
    LEFT JOIN received r ON r.begins = b.begins AND r.tenant_id = u.tenant_id AND r.project_id = u.project_id AND r.device_id = u.device_id
    WHERE b.begins >= %(live_since)s
), short AS (
    SELECT DISTINCT ON (c.tenant_id, c.project_id, c.device_id) c.*, s.threshold, s.severity, s.clear_seconds, s.hold_seconds
    FROM compared c
    CROSS JOIN LATERAL quality_setting('completeness', c.tenant_id, c.project_id, '') s
    WHERE c.received < c.expected - 6 * sqrt(c.expected) * greatest(c.deviation / c.mean, 0.3)
      AND s.enabled AND c.received < s.threshold * c.expected AND c.expected >= (s.parameters ->> 'least_expected')::double precision
    ORDER BY c.tenant_id, c.project_id, c.device_id, c.begins DESC
)
INSERT INTO quality_found (tenant_id, project_id, device_id, metric, failed, value, threshold, window_from, window_to, message, example,
    kafka_partition, kafka_offset, severity, clear_seconds, hold_seconds)
SELECT s.tenant_id, s.project_id, s.device_id, '', true, round((s.received / s.expected)::numeric, 3), s.threshold, s.begins, s.ends,
       s.received || ' messages received, about ' || round(s.expected) || ' expected',
       jsonb_build_object('received', s.received, 'expected', round(s.expected), 'usual_seconds', round(s.mean::numeric, 1)),
       s.last_partition, s.last_offset, s.severity, s.clear_seconds, s.hold_seconds
FROM short s
UNION ALL
SELECT i.tenant_id, i.project_id, i.device_id, '', false, round((c.received / c.expected)::numeric, 3), i.threshold, c.begins, c.ends,
       c.received || ' messages received, about ' || round(c.expected) || ' expected', NULL, NULL, NULL, i.severity, i.clear_seconds,
       i.hold_seconds
FROM quality_incident i
JOIN (SELECT DISTINCT ON (tenant_id, project_id, device_id) * FROM compared ORDER BY tenant_id, project_id, device_id, begins DESC) c
    USING (tenant_id, project_id, device_id)
WHERE i.rule = 'completeness' AND i.closed_at IS NULL AND c.received >= i.threshold * c.expected
ON CONFLICT DO NOTHING
