-- Missing numbers in series that count their messages: those of the configured names whose steps were mostly 1 before.
WITH scope AS MATERIALIZED (
    SELECT d.*, s.threshold, s.severity, s.clear_seconds, s.hold_seconds, (s.parameters ->> 'least_steps')::integer AS least_steps
    FROM (
        SELECT DISTINCT q.tenant_id, q.project_id, q.metric FROM quality_series q
        WHERE q.metric IN (SELECT jsonb_array_elements_text(r.parameters -> 'metrics') FROM quality_rule r WHERE r.rule = 'sequence_gap' AND r.parameters ? 'metrics')
    ) d
    CROSS JOIN LATERAL quality_setting('sequence_gap', d.tenant_id, d.project_id, d.metric) s
    WHERE s.enabled AND s.threshold IS NOT NULL AND s.parameters -> 'metrics' ? d.metric
), step AS (
    SELECT q.series_id, m.time, m.value, lag(m.time) OVER w AS time_before, lag(m.value) OVER w AS value_before, m.fresh OR lag(m.fresh) OVER w AS fresh
    FROM scope c
    JOIN quality_series q USING (tenant_id, project_id, metric)
    JOIN quality_measurement m USING (series_id)
    WHERE m.value IS NOT NULL AND abs(m.value) < 9e15
    WINDOW w AS (PARTITION BY q.series_id, m.segment ORDER BY m.time)
), gap AS (
    SELECT s.*, s.value - s.value_before - 1 AS missing FROM step s WHERE s.value > s.value_before + 1 AND s.fresh
), counting AS (  -- the steps before the gap tell whether the series counts messages at all
    SELECT g.* FROM gap g
    JOIN quality_series q USING (series_id)
    JOIN scope c USING (tenant_id, project_id, metric)
    CROSS JOIN LATERAL (
        SELECT count(*) AS steps, count(*) FILTER (WHERE o.step = 1) AS ones FROM (
            SELECT b.value - lead(b.value) OVER (ORDER BY b.time DESC) AS step FROM (
                SELECT m.time, m.value FROM measurement m
                WHERE m.series_id = g.series_id AND m.time <= g.time_before AND m.time >= %(oldest)s::timestamptz - interval '2 days'
                ORDER BY m.time DESC LIMIT 21
            ) b
        ) o WHERE o.step IS NOT NULL
    ) l
    WHERE l.ones >= c.least_steps AND l.ones >= 0.6 * l.steps
), judged AS (
    SELECT s.series_id, min(s.time) AS first_time, max(s.time) AS last_time, coalesce(max(n.missing), 0) AS missing, max(n.gaps) AS gaps, (array_agg(n.example))[1] AS example
    FROM (SELECT series_id, min(time) AS time FROM step GROUP BY 1 UNION ALL SELECT series_id, max(time) FROM step WHERE time_before IS NOT NULL GROUP BY 1) s
    LEFT JOIN (
        SELECT g.series_id, sum(g.missing) AS missing, count(*) AS gaps, (array_agg(jsonb_build_object('time', g.time, 'value', g.value, 'time_before', g.time_before,
            'value_before', g.value_before, 'series_id', g.series_id) ORDER BY g.time DESC))[1] AS example
        FROM counting g GROUP BY 1
    ) n USING (series_id)
    GROUP BY 1
)
INSERT INTO quality_found (tenant_id, project_id, device_id, metric, failed, value, threshold, window_from, window_to, message, example,
    severity, clear_seconds, hold_seconds)
SELECT q.tenant_id, q.project_id, q.device_id, q.metric, j.missing > c.threshold, j.missing, c.threshold, j.first_time, j.last_time,
       CASE WHEN j.missing > c.threshold THEN j.missing || ' numbers are missing, last between ' || (j.example ->> 'value_before') || ' and ' || (j.example ->> 'value')
            ELSE 'without a gap' END,
       j.example, c.severity, c.clear_seconds, c.hold_seconds
FROM judged j
JOIN quality_series q USING (series_id)
JOIN scope c USING (tenant_id, project_id, metric)
WHERE j.missing > c.threshold OR EXISTS (
    SELECT FROM quality_incident i WHERE i.rule = 'sequence_gap' AND i.closed_at IS NULL
      AND i.tenant_id = q.tenant_id AND i.project_id = q.project_id AND i.device_id = q.device_id AND i.metric = q.metric)
ON CONFLICT DO NOTHING
