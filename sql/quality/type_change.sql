-- Series whose values are now numbers, now texts (or booleans).
WITH kind AS (
    SELECT m.series_id, m.segment, m.time, m.value, m.value_text, m.fresh, CASE
        WHEN m.value IS NULL THEN 'text' WHEN m.value_text IN ('true', 'false') THEN 'boolean' ELSE 'number' END AS kind
    FROM quality_measurement m
), step AS (
    SELECT k.*, CASE WHEN k.fresh OR lag(k.fresh) OVER w THEN lag(k.kind) OVER w END AS kind_before
        FROM kind k WINDOW w AS (PARTITION BY k.series_id, k.segment ORDER BY k.time)
), judged AS (
    SELECT s.series_id, count(*) FILTER (WHERE s.kind <> s.kind_before) AS changes, min(s.time) AS first_time, max(s.time) AS last_time,
           (array_agg(jsonb_build_object('time', s.time, 'value', coalesce(s.value_text, s.value::text), 'type', s.kind, 'type_before',
               s.kind_before)
               ORDER BY s.time DESC) FILTER (WHERE s.kind <> s.kind_before))[1] AS example
    FROM step s GROUP BY 1
    HAVING count(*) FILTER (WHERE s.kind <> s.kind_before) > 0
        OR EXISTS (SELECT FROM quality_incident i WHERE i.rule = 'type_change' AND i.closed_at IS NULL)
)
INSERT INTO quality_found (tenant_id, project_id, device_id, metric, failed, value, threshold, window_from, window_to, message, example,
    severity, clear_seconds, hold_seconds)
SELECT q.tenant_id, q.project_id, q.device_id, q.metric, j.changes > s.threshold, j.changes, s.threshold, j.first_time, j.last_time,
       CASE WHEN j.changes > s.threshold THEN 'changed from ' || (j.example ->> 'type_before') || ' to ' || (j.example ->> 'type')
           ELSE 'of one type' END,
       j.example, s.severity, s.clear_seconds, s.hold_seconds
FROM judged j
JOIN quality_series q USING (series_id)
CROSS JOIN LATERAL quality_setting('type_change', q.tenant_id, q.project_id, q.metric) s
WHERE (s.enabled AND j.changes > s.threshold) OR (j.changes = 0 AND EXISTS (
    SELECT FROM quality_incident i WHERE i.rule = 'type_change' AND i.closed_at IS NULL
      AND i.tenant_id = q.tenant_id AND i.project_id = q.project_id AND i.device_id = q.device_id AND i.metric = q.metric))
ON CONFLICT DO NOTHING
