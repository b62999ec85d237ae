-- Queries of the dashboard Fleet overview. Each begins at its `-- name:` line. Ledger rows are few (some a second and partition), so up to a day
-- is summed from them; longer ranges come from the hourly sums.

-- name: rates
SELECT $__timeGroupAlias(committed_at, $__interval),
       sum(messages) * 60000.0 / $__interval_ms AS "messages",
       sum(measurements) * 60000.0 / $__interval_ms AS "measurements"
FROM batch_named
WHERE $__timeFilter(committed_at) AND kind <> 'accepted_loss'
  AND $__timeTo()::timestamptz - $__timeFrom()::timestamptz <= interval '1 day'
GROUP BY 1
UNION ALL
SELECT hour, sum(messages) / 60.0, sum(measurements) / 60.0
FROM traffic_1h
WHERE $__timeFilter(hour) AND $__timeTo()::timestamptz - $__timeFrom()::timestamptz > interval '1 day'
GROUP BY 1
ORDER BY 1

-- name: traffic_hourly
SELECT hour AS "time", sum(messages) AS "messages", sum(duplicates) AS "redelivered", sum(quarantined) AS "quarantined"
FROM traffic_1h
WHERE hour >= time_bucket('1 hour', greatest($__timeFrom()::timestamptz, $__timeTo()::timestamptz - interval '7 days')) AND hour <= $__timeTo()
GROUP BY 1
ORDER BY 1

-- name: rate_now
SELECT coalesce(sum(messages), 0) / 5.0 AS "messages/min", coalesce(sum(measurements), 0) / 5.0 AS "measurements/min"
FROM batch_named
WHERE committed_at > $__timeTo()::timestamptz - interval '5 minutes' AND committed_at <= $__timeTo() AND kind <> 'accepted_loss'

-- name: freshness_now
-- A batch's messages count as spread evenly between its first and its last receipt, as in `iot status`.
SELECT min(age) FILTER (WHERE below >= 0.5 * total) AS "p50", min(age) FILTER (WHERE below >= 0.95 * total) AS "p95"
FROM (
    SELECT a.age, sum(b.messages) OVER (ORDER BY a.age) AS below, sum(b.messages) OVER () AS total
    FROM batch_named b
    CROSS JOIN (VALUES (0.05), (0.25), (0.5), (0.75), (0.95)) s(share)
    CROSS JOIN LATERAL (SELECT b.oldest_seconds - s.share * (b.oldest_seconds - b.newest_seconds) AS age) a
    WHERE b.committed_at > $__timeTo()::timestamptz - interval '5 minutes' AND b.committed_at <= $__timeTo()
      AND b.kind = 'drain' AND b.messages > 0
) ages

-- name: freshness
-- Of each step the batches of a part: all of them for ranges up to an hour, and never more than an hour's batches in all.
SELECT p.moment AS "time",
       min(age) FILTER (WHERE below >= 0.5 * total) AS "p50", min(age) FILTER (WHERE below >= 0.95 * total) AS "p95", max(age) AS "slowest"
FROM (
    SELECT b.moment, a.age, sum(b.messages) OVER (PARTITION BY b.moment ORDER BY a.age) AS below, sum(b.messages) OVER (PARTITION BY b.moment) AS total
    FROM (
        SELECT t.moment, b.messages, b.oldest_seconds, b.newest_seconds
        FROM generate_series(time_bucket($__interval_ms * interval '1 ms', $__timeFrom()::timestamptz), $__timeTo()::timestamptz, $__interval_ms * interval '1 ms') t(moment)
        CROSS JOIN LATERAL (
            SELECT * FROM batch_named n
            WHERE n.committed_at >= t.moment
              AND n.committed_at < t.moment + $__interval_ms * interval '1 ms'
                  * least(1.0, 3600.0 / extract(epoch FROM $__timeTo()::timestamptz - $__timeFrom()::timestamptz))
              AND n.kind = 'drain' AND n.messages > 0
        ) b
        WHERE b.committed_at BETWEEN $__timeFrom() AND $__timeTo()
    ) b
    CROSS JOIN (VALUES (0.05), (0.5), (0.95)) s(share)
    CROSS JOIN LATERAL (SELECT b.oldest_seconds - s.share * (b.oldest_seconds - b.newest_seconds) AS age) a
) p
GROUP BY 1
ORDER BY 1

-- name: partitions
SELECT kafka_partition, next_offset, messages AS last_batch, oldest_seconds AS behind_seconds, last_received_at AS newest_received_at, committed_at,
       extract(epoch FROM clock_timestamp() - committed_at) AS idle_seconds
FROM partition_progress
ORDER BY kafka_partition

-- name: behind_now
SELECT max(oldest_seconds) AS "behind" FROM partition_progress WHERE committed_at > now() - interval '5 minutes'

-- name: idle_now
SELECT extract(epoch FROM clock_timestamp() - max(committed_at)) AS "since the last commit" FROM partition_progress

-- name: spool
SELECT sum(spooled) AS "spooled", sum(in_flight) AS "in flight" FROM audit_daemon

-- name: daemons
SELECT client_id, reported_at, received, delivered, spooled, in_flight, dead_lettered, given_up, missing, sessions_lost, difference, problem
FROM audit_daemon
ORDER BY client_id

-- name: differences
SELECT (SELECT count(*) FROM quality_open WHERE rule IN ('ledger_continuous', 'rollup_equals_source')) AS "ledger and rollups",
       (SELECT count(*) FROM audit_daemon WHERE problem IS NOT NULL) AS "ingest daemons"

-- name: incidents
SELECT count(*) FILTER (WHERE severity = 'ERROR') AS "errors", count(*) FILTER (WHERE severity = 'WARN') AS "warnings" FROM quality_open

-- name: quarantine_now
SELECT coalesce(sum(quarantined), 0) AS "quarantined"
FROM batch_named
WHERE committed_at > greatest($__timeFrom()::timestamptz, $__timeTo()::timestamptz - interval '1 day') AND committed_at <= $__timeTo() AND quarantined > 0

-- name: quarantine
SELECT $__timeGroupAlias(received_at, $__interval), reason AS metric, count(*) AS value
FROM quarantine_named
WHERE $__timeFilter(received_at)
GROUP BY 1, 2
ORDER BY 1

-- name: quarantine_projects
SELECT tenant_id, project_id, reason, count(*) AS messages, max(received_at) AS newest_received_at
FROM quarantine_named
WHERE $__timeFilter(received_at)
GROUP BY 1, 2, 3
ORDER BY messages DESC, tenant_id, project_id, reason
LIMIT 50

-- name: busiest
SELECT tenant_id, project_id, sum(messages) AS messages, sum(measurements) AS measurements, sum(quarantined) AS quarantined,
       sum(measurement_conflicts) AS conflicts, max(last_received_at) AS newest_received_at
FROM traffic_1h
WHERE hour >= time_bucket('1 hour', $__timeTo()::timestamptz - interval '1 hour') AND hour <= $__timeTo()
GROUP BY 1, 2
ORDER BY messages DESC, tenant_id, project_id
LIMIT 20

-- name: replays
SELECT committed_at AS "time", kind || ' of partition ' || kafka_partition || ', offsets ' || from_offset || ' to ' || to_offset - 1
       || coalesce(': ' || detail, '') AS text, kind AS tags
FROM batch_named
WHERE committed_at > greatest($__timeFrom()::timestamptz, $__timeTo()::timestamptz - interval '1 day') AND committed_at <= $__timeTo() AND kind <> 'drain'
ORDER BY committed_at DESC
LIMIT 100
