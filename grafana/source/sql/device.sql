-- Queries of the dashboard Device. Each begins at its `-- name:` line. Tenant and project are the variables of project.sql.
-- Grafana's sqlstring writes a double quote as backslash and double quote, which PostgreSQL takes as two characters: replace() undoes it,
-- or does the same to the column (findings/grafana_sqlstring_escapes_double_quotes.sh).

-- name: device
SELECT DISTINCT device_id AS __value, coalesce(nullif(device_id, ''), '(no device)') AS __text
FROM series_named
WHERE tenant_id = replace(${tenant:sqlstring}, '\"', '"') AND project_id = replace(${project:sqlstring}, '\"', '"')
ORDER BY device_id
LIMIT 10000

-- name: metric
SELECT DISTINCT metric
FROM series_named
WHERE device_id = replace(${device:sqlstring}, '\"', '"') AND tenant_id = replace(${tenant:sqlstring}, '\"', '"') AND project_id = replace(${project:sqlstring}, '\"', '"')
ORDER BY metric

-- name: size
SELECT count(*) AS "series", extract(epoch FROM clock_timestamp() - max(time)) AS "since the newest value"
FROM latest_named
WHERE device_id = replace(${device:sqlstring}, '\"', '"') AND tenant_id = replace(${tenant:sqlstring}, '\"', '"') AND project_id = replace(${project:sqlstring}, '\"', '"')

-- name: incidents
SELECT count(*) FILTER (WHERE severity = 'ERROR') AS "errors", count(*) FILTER (WHERE severity = 'WARN') AS "warnings"
FROM quality_open
WHERE tenant_id = replace(${tenant:sqlstring}, '\"', '"') AND project_id = replace(${project:sqlstring}, '\"', '"') AND device_id = replace(${device:sqlstring}, '\"', '"')

-- name: values
-- Raw up to 12 hours, hourly up to 92 days, daily beyond; at most 20 series. The planner leaves out chunks by to_timestamp, which it can compute.
WITH chosen AS MATERIALIZED (
    SELECT series_id, metric
    FROM series_named
    WHERE device_id = replace(${device:sqlstring}, '\"', '"') AND tenant_id = replace(${tenant:sqlstring}, '\"', '"') AND project_id = replace(${project:sqlstring}, '\"', '"')
      AND ('*' IN (${metric:sqlstring}) OR replace(metric, '"', '\"') IN (${metric:sqlstring}))
    ORDER BY metric
    LIMIT 20
), span AS (
    SELECT $__timeTo()::timestamptz - $__timeFrom()::timestamptz AS length
)
SELECT v."time", c.metric, v.value
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

-- name: bounds
-- What the averages hide: of the first chosen metric, minimum and maximum; from the hours up to 92 days, from the days beyond.
WITH chosen AS MATERIALIZED (
    SELECT series_id, metric
    FROM series_named
    WHERE device_id = replace(${device:sqlstring}, '\"', '"') AND tenant_id = replace(${tenant:sqlstring}, '\"', '"') AND project_id = replace(${project:sqlstring}, '\"', '"')
      AND ('*' IN (${metric:sqlstring}) OR replace(metric, '"', '\"') IN (${metric:sqlstring}))
    ORDER BY metric
    LIMIT 1
), span AS (
    SELECT $__timeTo()::timestamptz - $__timeFrom()::timestamptz AS length
)
SELECT v."time", v.value_min AS "minimum", v.value_avg AS "average", v.value_max AS "maximum"
FROM chosen c
CROSS JOIN LATERAL (
    SELECT h.bucket AS "time", h.value_min, h.value_avg, h.value_max
    FROM measurement_1h_named h
    WHERE h.series_id = c.series_id AND h.bucket >= time_bucket('1 hour', $__timeFrom()::timestamptz) AND h.bucket <= $__timeTo()
      AND (SELECT length FROM span) <= interval '92 days'
    UNION ALL
    SELECT d.bucket, d.value_min, d.value_avg, d.value_max
    FROM measurement_1d_named d
    WHERE d.series_id = c.series_id AND $__timeFilter(d.bucket) AND (SELECT length FROM span) > interval '92 days'
) v
ORDER BY 1

-- name: latest
SELECT metric, coalesce(value_text, value_int::text, value::text) AS latest_value, unit, time
FROM latest_named
WHERE device_id = replace(${device:sqlstring}, '\"', '"') AND tenant_id = replace(${tenant:sqlstring}, '\"', '"') AND project_id = replace(${project:sqlstring}, '\"', '"')
ORDER BY metric
LIMIT 500

-- name: messages
-- Messages have an index by time only: looked at are the last 15 minutes of the range, and the minutes around the device's newest value.
WITH origin AS MATERIALIZED (
    SELECT source_id FROM source_named
    WHERE device_id = replace(${device:sqlstring}, '\"', '"') AND tenant_id = replace(${tenant:sqlstring}, '\"', '"') AND project_id = replace(${project:sqlstring}, '\"', '"')
    LIMIT 100
), newest AS MATERIALIZED (
    SELECT max(time) AS time FROM latest_named
    WHERE device_id = replace(${device:sqlstring}, '\"', '"') AND tenant_id = replace(${tenant:sqlstring}, '\"', '"') AND project_id = replace(${project:sqlstring}, '\"', '"') AND time <= $__timeTo()
)
SELECT received_at, left(encode(payload, 'escape'), 500) AS payload, topic, time_source, duplicate_of, retain, qos, kafka_partition, kafka_offset
FROM message_named
WHERE $__timeFilter(received_at) AND source_id = ANY (ARRAY(SELECT source_id FROM origin))
  AND (received_at >= $__timeTo()::timestamptz - interval '15 minutes'
       OR received_at BETWEEN (SELECT time - interval '5 minutes' FROM newest) AND (SELECT time + interval '5 minutes' FROM newest))
ORDER BY received_at DESC
LIMIT 50

-- name: quarantine
SELECT q.received_at, q.reason, q.detail, q.topic, q.kafka_partition, q.kafka_offset, left(encode(q.payload, 'escape'), 200) AS payload
FROM quarantine_named q
WHERE $__timeFilter(q.received_at) AND q.tenant_id = replace(${tenant:sqlstring}, '\"', '"') AND q.project_id = replace(${project:sqlstring}, '\"', '"')
  AND q.topic IN (
      SELECT topic FROM source_named
      WHERE device_id = replace(${device:sqlstring}, '\"', '"') AND tenant_id = replace(${tenant:sqlstring}, '\"', '"') AND project_id = replace(${project:sqlstring}, '\"', '"')
      LIMIT 100)
ORDER BY q.received_at DESC
LIMIT 50

-- name: findings
SELECT opened_at, closed_at, severity, rule, metric, message, value, threshold, flaps
FROM quality_incident_named
WHERE tenant_id = replace(${tenant:sqlstring}, '\"', '"') AND project_id = replace(${project:sqlstring}, '\"', '"') AND device_id = replace(${device:sqlstring}, '\"', '"')
  AND opened_at <= $__timeTo() AND coalesce(closed_at, 'infinity') >= $__timeFrom()
ORDER BY opened_at DESC
LIMIT 100
