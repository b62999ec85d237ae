-- Values that change faster, from one measurement to the next, than their metric is set to.
WITH scope AS MATERIALIZED (
    SELECT d.*, s.threshold, s.severity, s.clear_seconds, s.hold_seconds
    FROM (
        SELECT DISTINCT q.tenant_id, q.project_id, q.metric FROM quality_series q
        WHERE q.metric IN (SELECT r.metric FROM quality_rule r WHERE r.rule = 'rate_of_change' AND r.metric <> '')
    ) d
    CROSS JOIN LATERAL quality_setting('rate_of_change', d.tenant_id, d.project_id, d.metric) s
    WHERE s.enabled AND s.threshold IS NOT NULL
), step AS (
    SELECT q.series_id, m.time, m.value, lag(m.time) OVER w AS time_before, lag(m.value) OVER w AS value_before, m.fresh
        OR lag(m.fresh) OVER w AS fresh
    FROM scope c
    JOIN quality_series q USING (tenant_id, project_id, metric)
    JOIN quality_measurement m USING (series_id)
    WHERE m.value IS NOT NULL
    WINDOW w AS (PARTITION BY q.series_id, m.segment ORDER BY m.time)
), rate AS (  -- a second at least: two readings within a millisecond say nothing; float8 raises on overflow and underflow
    SELECT s.*, CASE WHEN s.change < 1e-200 THEN 0
        ELSE s.change * 60 / greatest(extract(epoch FROM s.time - s.time_before)::double precision, 1) END AS rate
    FROM (
        SELECT s.*, abs(least(greatest(s.value, -1e300), 1e300) - least(greatest(s.value_before, -1e300), 1e300)) AS change
        FROM step s WHERE s.time_before IS NOT NULL AND s.fresh
    ) s
), judged AS (
    SELECT DISTINCT ON (r.series_id) r.* FROM rate r ORDER BY r.series_id, r.rate DESC, r.time DESC
)
INSERT INTO quality_found (tenant_id, project_id, device_id, metric, failed, value, threshold, window_from, window_to, message, example,
    severity, clear_seconds, hold_seconds)
SELECT q.tenant_id, q.project_id, q.device_id, q.metric, j.rate > c.threshold, j.rate, c.threshold, j.time_before, j.time,
       'from ' || j.value_before || ' to ' || j.value || ' in ' || round(extract(epoch FROM j.time - j.time_before), 3) || ' s',
       jsonb_build_object('time', j.time, 'value', j.value, 'time_before', j.time_before, 'value_before', j.value_before),
       c.severity, c.clear_seconds, c.hold_seconds
FROM judged j
JOIN quality_series q USING (series_id)
JOIN scope c USING (tenant_id, project_id, metric)
WHERE j.rate > c.threshold OR EXISTS (
    SELECT FROM quality_incident i WHERE i.rule = 'rate_of_change' AND i.closed_at IS NULL
      AND i.tenant_id = q.tenant_id AND i.project_id = q.project_id AND i.device_id = q.device_id AND i.metric = q.metric)
ON CONFLICT DO NOTHING
