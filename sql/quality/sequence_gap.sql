-- Missing numbers in series that count their messages: those of the configured names whose steps were mostly 1 before. A gap is noticed
-- first, and judged window_seconds later by what is there then: its messages may only be late, or out of order.
WITH scope AS MATERIALIZED (
    SELECT d.*, (s.parameters ->> 'least_steps')::integer AS least_steps
    FROM (
        SELECT DISTINCT q.tenant_id, q.project_id, q.metric FROM quality_series q
        WHERE q.metric IN (SELECT jsonb_array_elements_text(r.parameters -> 'metrics') FROM quality_rule r WHERE r.rule = 'sequence_gap'
            AND r.parameters ? 'metrics')
    ) d
    CROSS JOIN LATERAL quality_setting('sequence_gap', d.tenant_id, d.project_id, d.metric) s
    WHERE s.enabled AND s.threshold IS NOT NULL AND s.parameters -> 'metrics' ? d.metric
), step AS (
    SELECT q.*, c.least_steps, m.time, m.value, lag(m.time) OVER w AS time_before, lag(m.value) OVER w AS value_before, m.fresh
        OR lag(m.fresh) OVER w AS fresh
    FROM scope c
    JOIN quality_series q USING (tenant_id, project_id, metric)
    JOIN quality_measurement m USING (series_id)
    WHERE m.value IS NOT NULL AND abs(m.value) < 9e15
    WINDOW w AS (PARTITION BY q.series_id, m.segment ORDER BY m.time)
), noticed AS (  -- the steps before the gap tell whether the series counts messages at all
    INSERT INTO quality_gap (series_id, time_before, time, value_before, value, noticed_at, kafka_partition, kafka_offset)
    SELECT g.series_id, g.time_before, g.time, g.value_before, g.value, %(horizon)s, r.kafka_partition, r.kafka_offset
    FROM step g
    CROSS JOIN LATERAL (
        SELECT count(*) AS steps, count(*) FILTER (WHERE o.step = 1) AS ones FROM (
            SELECT b.value - lead(b.value) OVER (ORDER BY b.time DESC) AS step FROM (
                SELECT m.time, m.value FROM measurement m
                WHERE m.series_id = g.series_id AND m.time <= g.time_before AND m.time >= %(oldest)s::timestamptz - interval '2 days'
                ORDER BY m.time DESC LIMIT 21
            ) b
        ) o WHERE o.step IS NOT NULL
    ) l
    LEFT JOIN LATERAL (
        SELECT q.kafka_partition, q.kafka_offset FROM quality_message q JOIN source c USING (source_id)
        WHERE NOT q.duplicate AND c.tenant_id = g.tenant_id AND c.project_id = g.project_id AND c.device_id = g.device_id
        ORDER BY abs(extract(epoch FROM q.received_at - g.time)), q.kafka_offset LIMIT 1
    ) r ON true
    WHERE g.value > g.value_before + 1 AND g.fresh AND l.ones >= g.least_steps AND l.ones >= 0.6 * l.steps
    ON CONFLICT DO NOTHING
), due AS (
    DELETE FROM quality_gap g USING (
        SELECT g.series_id, g.time, t.tenant_id, t.project_id, t.device_id, t.metric, s.*
        FROM quality_gap g JOIN series t USING (series_id)
        CROSS JOIN LATERAL quality_setting('sequence_gap', t.tenant_id, t.project_id, t.metric) s
        WHERE g.noticed_at <= %(horizon)s::timestamptz - s.window_seconds * interval '1 second'
    ) s
    WHERE g.series_id = s.series_id AND g.time = s.time
    RETURNING g.*, s.tenant_id, s.project_id, s.device_id, s.metric, s.enabled, s.threshold, s.window_seconds, s.severity, s.clear_seconds,
        s.hold_seconds
), missed AS (  -- those that came since lie between the two in time; if devices name no times, around them
    SELECT d.*, d.value - d.value_before - 1 - n.there AS missing
    FROM due d
    CROSS JOIN LATERAL (
        SELECT count(DISTINCT m.value) AS there FROM measurement m
        WHERE m.series_id = d.series_id AND m.value > d.value_before AND m.value < d.value
          AND m.time >= d.time_before - d.window_seconds * interval '1 second' AND m.time <= d.time + d.window_seconds * interval '1 second'
    ) n
    WHERE d.enabled AND d.threshold IS NOT NULL
), failed AS (
    SELECT m.tenant_id, m.project_id, m.device_id, m.metric, sum(m.missing) AS missing, max(m.threshold) AS threshold,
        min(m.time_before) AS first_time,
           max(m.time) AS last_time, max(m.severity) AS severity, max(m.clear_seconds) AS clear_seconds,
           max(m.hold_seconds) AS hold_seconds,
           (array_agg(jsonb_build_object('time', m.time, 'value', m.value, 'time_before', m.time_before, 'value_before', m.value_before)
               ORDER BY m.time DESC))[1] AS example,
           (array_agg(m.kafka_partition ORDER BY m.time DESC))[1] AS kafka_partition,
           (array_agg(m.kafka_offset ORDER BY m.time DESC))[1] AS kafka_offset
    FROM missed m WHERE m.missing > 0
    GROUP BY m.tenant_id, m.project_id, m.device_id, m.metric
    HAVING sum(m.missing) > max(m.threshold)
)
INSERT INTO quality_found (tenant_id, project_id, device_id, metric, failed, value, threshold, window_from, window_to, message, example,
    kafka_partition, kafka_offset, severity, clear_seconds, hold_seconds)
SELECT f.tenant_id, f.project_id, f.device_id, f.metric, true, f.missing, f.threshold, f.first_time, f.last_time,
       f.missing || ' numbers are missing, last between ' || (f.example ->> 'value_before') || ' and ' || (f.example ->> 'value'),
       f.example, f.kafka_partition, f.kafka_offset, f.severity, f.clear_seconds, f.hold_seconds
FROM failed f
UNION ALL  -- nothing is missing that was noticed, and it went on
SELECT i.tenant_id, i.project_id, i.device_id, i.metric, false, 0, i.threshold, s.first_time, s.last_time, 'without a gap', NULL, NULL,
    NULL,
       i.severity, i.clear_seconds, i.hold_seconds
FROM quality_incident i
JOIN (SELECT s.series_id, s.tenant_id, s.project_id, s.device_id, s.metric, min(s.time) AS first_time, max(s.time) AS last_time
      FROM step s WHERE s.time_before IS NOT NULL GROUP BY 1, 2, 3, 4, 5) s USING (tenant_id, project_id, device_id, metric)
WHERE i.rule = 'sequence_gap' AND i.closed_at IS NULL
  AND NOT EXISTS (SELECT FROM quality_gap g WHERE g.series_id = s.series_id)
      AND NOT EXISTS (SELECT FROM step g WHERE g.series_id = s.series_id AND g.value > g.value_before + 1 AND g.fresh)
  AND NOT EXISTS (SELECT FROM failed f WHERE f.tenant_id = i.tenant_id AND f.project_id = i.project_id AND f.device_id = i.device_id
      AND f.metric = i.metric)
ON CONFLICT DO NOTHING
