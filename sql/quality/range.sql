-- Values beyond the limits that are set for their metric.
WITH scope AS MATERIALIZED (
    SELECT d.*, s.threshold, s.severity, s.clear_seconds, s.hold_seconds,
           coalesce((s.parameters ->> 'min')::double precision, '-infinity') AS least,
           coalesce((s.parameters ->> 'max')::double precision, 'infinity') AS most
    FROM (
        SELECT DISTINCT q.tenant_id, q.project_id, q.metric FROM quality_series q
        WHERE q.metric IN (SELECT r.metric FROM quality_rule r WHERE r.rule = 'range' AND r.metric <> '')
    ) d
    CROSS JOIN LATERAL quality_setting('range', d.tenant_id, d.project_id, d.metric) s
    WHERE s.enabled AND s.threshold IS NOT NULL AND (s.parameters ? 'min' OR s.parameters ? 'max')
), judged AS (
    SELECT q.series_id, count(*) FILTER (WHERE m.value < c.least OR m.value > c.most) AS outside,
           (array_agg(m.time ORDER BY m.excess DESC, m.time DESC))[1] AS worst_time,
           (array_agg(m.value ORDER BY m.excess DESC, m.time DESC))[1] AS worst,
           min(m.time) AS first_time, max(m.time) AS last_time
    FROM scope c
    JOIN quality_series q USING (tenant_id, project_id, metric)
    CROSS JOIN LATERAL (  -- bounded, because float8 raises on overflow
        SELECT n.time, n.value, greatest(greatest(c.least, -1e300) - least(greatest(n.value, -1e300), 1e300),
            least(greatest(n.value, -1e300), 1e300) - least(c.most, 1e300)) AS excess
        FROM quality_measurement n WHERE n.series_id = q.series_id AND n.value IS NOT NULL AND n.fresh
    ) m
    GROUP BY q.series_id
)
INSERT INTO quality_found (tenant_id, project_id, device_id, metric, failed, value, threshold, window_from, window_to, message, example,
    severity, clear_seconds, hold_seconds)
SELECT q.tenant_id, q.project_id, q.device_id, q.metric, j.outside > c.threshold, j.worst, CASE WHEN j.worst < c.least THEN c.least
    ELSE c.most END,
       j.first_time, j.last_time, CASE
           WHEN j.outside <= c.threshold THEN 'within ' || c.least || ' to ' || c.most
           ELSE j.worst || CASE WHEN j.worst < c.least THEN ' is below ' || c.least ELSE ' is above ' || c.most END
               || CASE WHEN j.outside > 1 THEN ', and ' || j.outside - 1 || ' more values are outside' ELSE '' END END,
       jsonb_build_object('time', j.worst_time, 'value', j.worst), c.severity, c.clear_seconds, c.hold_seconds
FROM judged j
JOIN quality_series q USING (series_id)
JOIN scope c USING (tenant_id, project_id, metric)
WHERE j.outside > c.threshold OR EXISTS (
    SELECT FROM quality_incident i WHERE i.rule = 'range' AND i.closed_at IS NULL
      AND i.tenant_id = q.tenant_id AND i.project_id = q.project_id AND i.device_id = q.device_id AND i.metric = q.metric)
ON CONFLICT DO NOTHING
