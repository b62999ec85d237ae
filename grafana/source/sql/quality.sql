-- Queries of the dashboard Data quality. Each begins at its `-- name:` line. The variable tenant may be all of them: '*'.
-- Grafana's sqlstring writes a double quote as backslash and double quote, which PostgreSQL takes as two characters: replace() undoes it,
-- or does the same to the column (findings/grafana_sqlstring_escapes_double_quotes.sh).

-- name: tenant
SELECT DISTINCT tenant_id AS __value, coalesce(nullif(tenant_id, ''), '(no tenant)') AS __text
FROM (SELECT tenant_id FROM project_named UNION ALL SELECT '') t
ORDER BY 1

-- name: rule
SELECT rule FROM quality_progress ORDER BY rule

-- name: open_now
SELECT count(*) FILTER (WHERE severity = 'ERROR') AS "errors", count(*) FILTER (WHERE severity = 'WARN') AS "warnings",
       count(DISTINCT (tenant_id, project_id)) AS "projects"
FROM quality_open
WHERE ('*' IN (${tenant:sqlstring}) OR replace(tenant_id, '"', '\"') IN (${tenant:sqlstring})) AND ('*' IN (${rule:sqlstring}) OR rule IN (${rule:sqlstring}))

-- name: opened
SELECT count(*) FILTER (WHERE $__timeFilter(opened_at)) AS "opened", count(*) FILTER (WHERE $__timeFilter(closed_at)) AS "closed",
       coalesce(extract(epoch FROM avg(closed_at - opened_at) FILTER (WHERE $__timeFilter(closed_at))), 0) AS "mean duration"
FROM quality_incident_named
WHERE ('*' IN (${tenant:sqlstring}) OR replace(tenant_id, '"', '\"') IN (${tenant:sqlstring})) AND ('*' IN (${rule:sqlstring}) OR rule IN (${rule:sqlstring}))
  AND opened_at <= $__timeTo() AND coalesce(closed_at, 'infinity') >= $__timeFrom()

-- name: evaluated
SELECT extract(epoch FROM clock_timestamp() - min(evaluated_at)) AS "oldest evaluation", max(seconds) AS "slowest rule",
       count(error) AS "rules with an error"
FROM quality_progress
WHERE enabled

-- name: open
SELECT opened_at, severity, rule, tenant_id, project_id, device_id, metric, message, value, threshold, last_seen_at, flaps, kafka_partition, kafka_offset
FROM quality_open
WHERE ('*' IN (${tenant:sqlstring}) OR replace(tenant_id, '"', '\"') IN (${tenant:sqlstring})) AND ('*' IN (${rule:sqlstring}) OR rule IN (${rule:sqlstring}))
ORDER BY severity, opened_at DESC
LIMIT 200

-- name: findings
SELECT $__timeGroupAlias(evaluated_at, $__interval), rule AS metric, count(*) AS value
FROM quality_named
WHERE $__timeFilter(evaluated_at) AND status <> 'OK'
  AND ('*' IN (${tenant:sqlstring}) OR replace(tenant_id, '"', '\"') IN (${tenant:sqlstring})) AND ('*' IN (${rule:sqlstring}) OR rule IN (${rule:sqlstring}))
GROUP BY 1, 2
ORDER BY 1

-- name: timeline
-- 0 nothing open, 1 a warning, 2 an error: the worst incident of each rule that was open at some time of the step.
SELECT t.moment AS "time", p.rule AS metric, coalesce(w.worst, 0) AS value
FROM generate_series(time_bucket($__interval_ms * interval '1 ms', $__timeFrom()::timestamptz), $__timeTo()::timestamptz, $__interval_ms * interval '1 ms') t(moment)
CROSS JOIN quality_progress p
LEFT JOIN (
    SELECT s.moment, i.rule, max(CASE i.severity WHEN 'ERROR' THEN 2 ELSE 1 END) AS worst
    FROM quality_incident_named i
    CROSS JOIN LATERAL generate_series(
        time_bucket($__interval_ms * interval '1 ms', greatest(i.opened_at, $__timeFrom()::timestamptz)),
        least(coalesce(i.closed_at, $__timeTo()::timestamptz), $__timeTo()::timestamptz), $__interval_ms * interval '1 ms') s(moment)
    WHERE i.opened_at <= $__timeTo() AND coalesce(i.closed_at, 'infinity') >= $__timeFrom()
      AND ('*' IN (${tenant:sqlstring}) OR replace(i.tenant_id, '"', '\"') IN (${tenant:sqlstring}))
    GROUP BY 1, 2
) w ON w.moment = t.moment AND w.rule = p.rule
WHERE '*' IN (${rule:sqlstring}) OR p.rule IN (${rule:sqlstring})
ORDER BY 1, 2

-- name: rules
SELECT p.rule, p.severity, p.enabled, coalesce(o.open, 0) AS open, p.failing, p.evaluated_at, p.seconds, p.error, p.description
FROM quality_progress p
LEFT JOIN (SELECT rule, count(*) AS open FROM quality_open GROUP BY rule) o USING (rule)
ORDER BY open DESC, p.rule

-- name: ended
SELECT closed_at, opened_at, extract(epoch FROM closed_at - opened_at) AS duration_seconds, severity, rule, tenant_id, project_id, device_id, metric,
       message, flaps
FROM quality_incident_named
WHERE $__timeFilter(closed_at)
  AND ('*' IN (${tenant:sqlstring}) OR replace(tenant_id, '"', '\"') IN (${tenant:sqlstring})) AND ('*' IN (${rule:sqlstring}) OR rule IN (${rule:sqlstring}))
ORDER BY closed_at DESC
LIMIT 200

-- name: projects
SELECT tenant_id, project_id, count(*) FILTER (WHERE severity = 'ERROR') AS errors, count(*) FILTER (WHERE severity = 'WARN') AS warnings,
       count(DISTINCT device_id) AS devices, min(opened_at) AS oldest_opened_at
FROM quality_open
WHERE ('*' IN (${tenant:sqlstring}) OR replace(tenant_id, '"', '\"') IN (${tenant:sqlstring})) AND ('*' IN (${rule:sqlstring}) OR rule IN (${rule:sqlstring}))
GROUP BY 1, 2
ORDER BY errors DESC, warnings DESC, tenant_id, project_id
LIMIT 100

-- name: conflict_projects
-- Hours with conflicts have an example of them, and an index of their own.
SELECT tenant_id, project_id, conflicts, measurements, conflicts / measurements AS share, example ->> 'device_id' AS device_id,
       example ->> 'metric' AS metric, (example ->> 'time')::timestamptz AS conflict_time, example ->> 'stored' AS stored_value,
       example ->> 'said' AS other_value, (example ->> 'kafka_partition')::integer AS kafka_partition,
       (example ->> 'kafka_offset')::bigint AS kafka_offset
FROM (
    SELECT tenant_id, project_id, sum(measurement_conflicts) AS conflicts,
           sum(measurements + measurement_duplicates + measurement_conflicts) AS measurements,
           (array_agg(conflict_example ORDER BY hour DESC, kafka_partition))[1] AS example
    FROM traffic_1h
    WHERE conflict_example IS NOT NULL AND hour >= time_bucket('1 hour', $__timeFrom()::timestamptz) AND hour <= $__timeTo()
      AND ('*' IN (${tenant:sqlstring}) OR replace(tenant_id, '"', '\"') IN (${tenant:sqlstring}))
    GROUP BY 1, 2
    ORDER BY conflicts DESC, 1, 2
    LIMIT 50
) c
ORDER BY conflicts DESC, tenant_id, project_id

-- name: conflicts
WITH chosen AS MATERIALIZED (
    SELECT tenant_id, project_id
    FROM traffic_1h
    WHERE conflict_example IS NOT NULL AND hour >= time_bucket('1 hour', $__timeFrom()::timestamptz) AND hour <= $__timeTo()
      AND ('*' IN (${tenant:sqlstring}) OR replace(tenant_id, '"', '\"') IN (${tenant:sqlstring}))
    GROUP BY 1, 2
    ORDER BY sum(measurement_conflicts) DESC, 1, 2
    LIMIT 10
)
SELECT t.hour AS "time", t.tenant_id || ' / ' || t.project_id AS metric, sum(t.measurement_conflicts) AS value
FROM traffic_1h t
JOIN chosen c USING (tenant_id, project_id)
WHERE t.conflict_example IS NOT NULL AND t.hour >= time_bucket('1 hour', $__timeFrom()::timestamptz) AND t.hour <= $__timeTo()
GROUP BY 1, 2
ORDER BY 1, 2

-- name: marks
SELECT opened_at AS "time", closed_at AS timeend, rule || ': ' || message AS text, severity AS tags
FROM quality_incident_named
WHERE $__timeFilter(opened_at) AND severity = 'ERROR' AND ('*' IN (${tenant:sqlstring}) OR replace(tenant_id, '"', '\"') IN (${tenant:sqlstring}))
ORDER BY opened_at DESC
LIMIT 100
