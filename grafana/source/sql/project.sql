-- Queries of the dashboard Tenant / project. Each begins at its `-- name:` line.
-- Grafana's sqlstring writes a double quote as backslash and double quote, which PostgreSQL takes as two characters: replace() undoes it,
-- or does the same to the column (findings/grafana_sqlstring_escapes_double_quotes.sh).

-- name: tenant
SELECT DISTINCT tenant_id FROM project_named ORDER BY tenant_id

-- name: project
SELECT project_id FROM project_named WHERE tenant_id = replace(${tenant:sqlstring}, '\"', '"') ORDER BY project_id

-- name: metric
SELECT DISTINCT metric FROM series_named WHERE tenant_id = replace(${tenant:sqlstring}, '\"', '"') AND project_id = replace(${project:sqlstring}, '\"', '"') ORDER BY metric

-- name: device
SELECT DISTINCT device_id AS __value, coalesce(nullif(device_id, ''), '(no device)') AS __text
FROM series_named
WHERE tenant_id = replace(${tenant:sqlstring}, '\"', '"') AND project_id = replace(${project:sqlstring}, '\"', '"') AND metric = replace(${metric:sqlstring}, '\"', '"')
ORDER BY device_id
LIMIT 5000

-- name: received
-- Hour by hour, because the sums are kept by hour first: each is one look into the index. As traffic and silence.
SELECT sum(h.messages) AS "messages", sum(h.measurements) AS "measurements", sum(h.quarantined) AS "quarantined", sum(h.duplicates) AS "redelivered"
FROM generate_series(time_bucket('1 hour', $__timeFrom()::timestamptz), $__timeTo()::timestamptz, interval '1 hour') g(hour)
CROSS JOIN LATERAL (
    SELECT sum(t.messages) AS messages, sum(t.measurements) AS measurements, sum(t.quarantined) AS quarantined, sum(t.duplicates) AS duplicates
    FROM traffic_1h t
    WHERE t.hour = g.hour AND t.tenant_id = replace(${tenant:sqlstring}, '\"', '"') AND t.project_id = replace(${project:sqlstring}, '\"', '"')
) h

-- name: size
SELECT series_count AS "series", source_count AS "sources"
FROM project_named
WHERE tenant_id = replace(${tenant:sqlstring}, '\"', '"') AND project_id = replace(${project:sqlstring}, '\"', '"')

-- name: silence
SELECT extract(epoch FROM clock_timestamp() - h.last_received_at) AS "since the last message"
FROM generate_series(time_bucket('1 hour', now() + interval '1 hour'), now() - interval '3 days', interval '-1 hour') g(hour)
CROSS JOIN LATERAL (
    SELECT max(t.last_received_at) AS last_received_at
    FROM traffic_1h t
    WHERE t.hour = g.hour AND t.tenant_id = replace(${tenant:sqlstring}, '\"', '"') AND t.project_id = replace(${project:sqlstring}, '\"', '"')
) h
WHERE h.last_received_at IS NOT NULL
LIMIT 1

-- name: incidents
SELECT count(*) FILTER (WHERE severity = 'ERROR') AS "errors", count(*) FILTER (WHERE severity = 'WARN') AS "warnings"
FROM quality_open
WHERE tenant_id = replace(${tenant:sqlstring}, '\"', '"') AND project_id IN ('', replace(${project:sqlstring}, '\"', '"'))

-- name: values
-- Raw up to 12 hours, hourly up to 92 days, daily beyond; at most 20 devices. The planner leaves out chunks by to_timestamp, which it can compute.
WITH chosen AS MATERIALIZED (
    SELECT series_id, coalesce(nullif(device_id, ''), '(no device)') AS device
    FROM series_named
    WHERE tenant_id = replace(${tenant:sqlstring}, '\"', '"') AND project_id = replace(${project:sqlstring}, '\"', '"') AND metric = replace(${metric:sqlstring}, '\"', '"')
      AND ('*' IN (${device:sqlstring}) OR replace(device_id, '"', '\"') IN (${device:sqlstring}))
    ORDER BY device_id
    LIMIT 20
), span AS (
    SELECT $__timeTo()::timestamptz - $__timeFrom()::timestamptz AS length
)
SELECT v."time", c.device AS metric, v.value
FROM chosen c
CROSS JOIN LATERAL (
    SELECT $__timeGroupAlias(m.time, $__interval), avg(m.value) AS value
    FROM measurement_by_series m
    WHERE m.series_id = c.series_id AND $__timeFilter(m.time) AND m.time >= to_timestamp($__unixEpochTo() - 43200) AND (SELECT length FROM span) <= interval '12 hours'
    GROUP BY 1
    UNION ALL
    SELECT h.bucket, h.value_avg
    FROM measurement_1h_named h
    WHERE h.series_id = c.series_id AND $__timeFilter(h.bucket) AND (SELECT length FROM span) BETWEEN interval '12 hours 1 microsecond' AND interval '92 days'
    UNION ALL
    SELECT d.bucket, d.value_avg
    FROM measurement_1d_named d
    WHERE d.series_id = c.series_id AND $__timeFilter(d.bucket) AND (SELECT length FROM span) > interval '92 days'
) v
ORDER BY 1, 2

-- name: latest
WITH chosen AS MATERIALIZED (
    SELECT series_id FROM series_named
    WHERE tenant_id = replace(${tenant:sqlstring}, '\"', '"') AND project_id = replace(${project:sqlstring}, '\"', '"')
    ORDER BY device_id, metric
    LIMIT 1000
)
SELECT device_id, metric, coalesce(value_text, value_int::text, value::text) AS latest_value, unit, time, tenant_id, project_id
FROM latest_named
WHERE series_id = ANY (ARRAY(SELECT series_id FROM chosen))
ORDER BY device_id, metric

-- name: traffic
SELECT g.hour AS "time", h.messages AS "messages", h.measurements AS "measurements", h.quarantined AS "quarantined", h.conflicts AS "conflicts"
FROM generate_series(time_bucket('1 hour', $__timeFrom()::timestamptz), $__timeTo()::timestamptz, interval '1 hour') g(hour)
CROSS JOIN LATERAL (
    SELECT sum(t.messages) AS messages, sum(t.measurements) AS measurements, sum(t.quarantined) AS quarantined,
           sum(t.measurement_conflicts) AS conflicts
    FROM traffic_1h t
    WHERE t.hour = g.hour AND t.tenant_id = replace(${tenant:sqlstring}, '\"', '"') AND t.project_id = replace(${project:sqlstring}, '\"', '"')
) h
WHERE h.messages IS NOT NULL
ORDER BY 1

-- name: quarantine
SELECT received_at, reason, detail, topic, kafka_partition, kafka_offset, left(encode(payload, 'escape'), 200) AS payload
FROM quarantine_named
WHERE $__timeFilter(received_at) AND tenant_id = replace(${tenant:sqlstring}, '\"', '"') AND project_id = replace(${project:sqlstring}, '\"', '"')
ORDER BY received_at DESC
LIMIT 50

-- name: open
SELECT opened_at, severity, rule, device_id, metric, message, value, threshold, last_seen_at, flaps, tenant_id, project_id
FROM quality_open
WHERE tenant_id = replace(${tenant:sqlstring}, '\"', '"') AND project_id IN ('', replace(${project:sqlstring}, '\"', '"'))
ORDER BY severity, opened_at DESC
LIMIT 100

-- name: marks
SELECT opened_at AS "time", closed_at AS timeend, rule || ': ' || message AS text, severity AS tags
FROM quality_incident_named
WHERE tenant_id = replace(${tenant:sqlstring}, '\"', '"') AND project_id = replace(${project:sqlstring}, '\"', '"') AND $__timeFilter(opened_at)
ORDER BY opened_at DESC
LIMIT 100
