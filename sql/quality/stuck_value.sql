-- Numbers that stopped changing. Only series whose newest values are all equal are looked at, back to twice the run that would be too
-- long; one that shows no change at all there is a constant, remembered, and not looked at again until it changes. So is a counter that
-- stands still: what never fell, but to a resting value. Resting values (parameters.resting) are not judged, nor what had
-- fewer than five values before: flags, states, and coarse numbers that wavered between neighbours.
WITH recent AS (
    SELECT m.series_id, min(m.value) AS value, max(m.value) AS other, max(m.time) AS last_time, count(*) AS rows
    FROM quality_measurement m WHERE m.value IS NOT NULL AND m.value_text IS NULL GROUP BY 1
), moved AS (
    DELETE FROM quality_constant c USING recent r WHERE c.series_id = r.series_id AND (r.value <> c.value OR r.other <> c.value)
), still AS (
    SELECT r.series_id, r.value, r.last_time, q.tenant_id, q.project_id, q.device_id, q.metric, s.threshold::integer AS least,
        s.window_seconds,
           s.severity, s.clear_seconds, s.hold_seconds, s.parameters -> 'resting' AS resting,
           (s.parameters ->> 'least_changes')::double precision AS least_changes, i.incident_id
    FROM recent r
    JOIN quality_series q USING (series_id)
    LEFT JOIN quality_constant c ON c.series_id = r.series_id AND c.value = r.value
    LEFT JOIN quality_incident i ON i.rule = 'stuck_value' AND i.closed_at IS NULL
        AND i.tenant_id = q.tenant_id AND i.project_id = q.project_id AND i.device_id = q.device_id AND i.metric = q.metric
    CROSS JOIN LATERAL quality_setting('stuck_value', q.tenant_id, q.project_id, q.metric) s
    WHERE r.value = r.other AND r.rows > 1 AND c.series_id IS NULL AND s.enabled AND s.threshold >= 2
      AND NOT coalesce(s.parameters -> 'resting' @> to_jsonb(r.value), false)
), run AS (
    SELECT s.*, l.rows, l.run, l.changes, l.since, l.kinds
    FROM still s
    CROSS JOIN LATERAL (
        SELECT count(*) AS rows, count(*) FILTER (WHERE n.moves = 0) AS run, min(n.time) FILTER (WHERE n.moves = 0) AS since,
               count(*) FILTER (WHERE n.moves > 0 AND n.moved) AS changes, count(DISTINCT n.value) FILTER (WHERE n.moves > 0) AS kinds
        FROM (
            SELECT o.*, count(*) FILTER (WHERE o.value IS DISTINCT FROM s.value) OVER (ORDER BY o.time DESC) AS moves,
                   o.value IS DISTINCT FROM lag(o.value) OVER (ORDER BY o.time DESC) AS moved  -- noqa: PRS
            FROM (  -- noqa: PRS
                SELECT m.time, m.value FROM measurement m
                WHERE m.series_id = s.series_id AND m.time <= s.last_time AND m.time >= %(horizon)s::timestamptz - interval '7 days'
                ORDER BY m.time DESC LIMIT 2 * s.least
            ) o
        ) n
    ) l
), suspect AS (
    SELECT r.* FROM run r WHERE r.incident_id IS NOT NULL
        OR (r.run >= r.least AND extract(epoch FROM r.last_time - r.since) >= r.window_seconds
        AND r.kinds >= 5 AND r.changes >= r.least_changes * (r.rows - r.run))
), judged AS (
    SELECT s.*, s.incident_id IS NULL AND NOT l.fell AND l.resets < 0.1 * l.rows AS counts
    FROM suspect s
    CROSS JOIN LATERAL (  -- up to 2,000 of a week, once each time that it stands still
        SELECT count(*) AS rows, coalesce(bool_or(o.value < o.before AND NOT o.rests), false) AS fell,
            count(*) FILTER (WHERE o.value < o.before) AS resets
        FROM (
            SELECT b.value, lead(b.value) OVER (ORDER BY b.time DESC) AS before, coalesce(s.resting @> to_jsonb(b.value), false) AS rests
                FROM (
                SELECT m.time, m.value FROM measurement m
                WHERE s.incident_id IS NULL AND m.series_id = s.series_id AND m.time <= s.since
                    AND m.time >= %(horizon)s::timestamptz - interval '7 days'
                ORDER BY m.time DESC LIMIT 2000
            ) b
        ) o
    ) l
), remembered AS (
    INSERT INTO quality_constant (series_id, value, since)
    SELECT r.series_id, r.value, r.since FROM run r WHERE r.run = r.rows AND r.rows >= 2 * r.least AND r.incident_id IS NULL
    UNION
    SELECT j.series_id, j.value, j.since FROM judged j WHERE j.counts
    ON CONFLICT (series_id) DO UPDATE SET value = excluded.value, since = excluded.since
)
INSERT INTO quality_found (tenant_id, project_id, device_id, metric, failed, value, threshold, window_from, window_to, message, example,
    severity, clear_seconds, hold_seconds)
SELECT j.tenant_id, j.project_id, j.device_id, j.metric, true, j.run, j.least, j.since, j.last_time,
       'exactly ' || j.value || ' for at least ' || j.run || ' measurements; it used to change',
       jsonb_build_object('time', j.last_time, 'value', j.value, 'since', j.since), j.severity, j.clear_seconds, j.hold_seconds
FROM judged j WHERE NOT j.counts
UNION ALL
SELECT i.tenant_id, i.project_id, i.device_id, i.metric, false, 1, i.threshold, r.last_time, r.last_time, 'changes again', NULL,
       i.severity, i.clear_seconds, i.hold_seconds
FROM quality_incident i
JOIN quality_series q USING (tenant_id, project_id, device_id, metric)
JOIN recent r USING (series_id)
WHERE i.rule = 'stuck_value' AND i.closed_at IS NULL AND r.value <> r.other
ON CONFLICT DO NOTHING
