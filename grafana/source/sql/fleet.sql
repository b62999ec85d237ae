-- Queries of the dashboard Fleet overview. Each begins at its `-- name:` line. The ledger gets some rows a second, however many projects there are;
-- of each step the first so many are read, which bounds both the work and what the planner expects (it would compile a large plan for seconds).

-- name: rates
SELECT t.moment AS "time", s.messages / s.minutes AS "messages", s.measurements / s.minutes AS "measurements"
FROM (
    SELECT * FROM generate_series(
        time_bucket($__interval_ms * interval '1 ms', $__timeFrom()::timestamptz), $__timeTo()::timestamptz, $__interval_ms * interval '1 ms') m(moment)
    LIMIT 300
) t
CROSS JOIN LATERAL (
    SELECT CASE WHEN count(*) < 100 THEN $__interval_ms / 60000.0 ELSE extract(epoch FROM max(b.committed_at) - t.moment) / 60.0 END AS minutes,
           sum(b.messages) AS messages, sum(b.measurements) AS measurements
    FROM (
        SELECT * FROM batch_named n
        WHERE n.committed_at >= t.moment AND n.committed_at < t.moment + $__interval_ms * interval '1 ms' AND n.kind <> 'accepted_loss'
        ORDER BY n.committed_at LIMIT 100
    ) b
) s
WHERE s.minutes > 0 AND s.messages IS NOT NULL
ORDER BY 1

-- name: rest
SELECT t.moment AS "time", s.redelivered / s.minutes AS "redelivered", s.quarantined / s.minutes AS "quarantined",
       s.repeated / s.minutes AS "repeated measurements", s.conflicts / s.minutes AS "conflicting measurements"
FROM (
    SELECT * FROM generate_series(
        time_bucket($__interval_ms * interval '1 ms', $__timeFrom()::timestamptz), $__timeTo()::timestamptz, $__interval_ms * interval '1 ms') m(moment)
    LIMIT 300
) t
CROSS JOIN LATERAL (
    SELECT CASE WHEN count(*) < 100 THEN $__interval_ms / 60000.0 ELSE extract(epoch FROM max(b.committed_at) - t.moment) / 60.0 END AS minutes,
           sum(b.duplicates) AS redelivered, sum(b.quarantined) AS quarantined, sum(b.measurement_duplicates) AS repeated,
           sum(b.measurement_conflicts) AS conflicts
    FROM (
        SELECT * FROM batch_named n
        WHERE n.committed_at >= t.moment AND n.committed_at < t.moment + $__interval_ms * interval '1 ms' AND n.kind <> 'accepted_loss'
        ORDER BY n.committed_at LIMIT 100
    ) b
) s
WHERE s.minutes > 0 AND s.redelivered IS NOT NULL
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
-- A batch's messages count as spread evenly between its first and its last receipt.
SELECT t.moment AS "time", s.p50, s.p95, s.slowest
FROM (
    SELECT * FROM generate_series(
        time_bucket($__interval_ms * interval '1 ms', $__timeFrom()::timestamptz), $__timeTo()::timestamptz, $__interval_ms * interval '1 ms') m(moment)
    LIMIT 300
) t
CROSS JOIN LATERAL (
    SELECT min(a.age) FILTER (WHERE a.below >= 0.5 * a.total) AS p50, min(a.age) FILTER (WHERE a.below >= 0.95 * a.total) AS p95, max(a.age) AS slowest
    FROM (
        SELECT x.age, sum(b.messages) OVER (ORDER BY x.age) AS below, sum(b.messages) OVER () AS total
        FROM (
            SELECT * FROM batch_named n
            WHERE n.committed_at >= t.moment AND n.committed_at < t.moment + $__interval_ms * interval '1 ms' AND n.kind = 'drain' AND n.messages > 0
            ORDER BY n.committed_at LIMIT 50
        ) b
        CROSS JOIN (VALUES (0.05), (0.5), (0.95)) v(share)
        CROSS JOIN LATERAL (SELECT b.oldest_seconds - v.share * (b.oldest_seconds - b.newest_seconds) AS age) x
    ) a
) s
WHERE s.p50 IS NOT NULL
ORDER BY 1

-- name: partitions
SELECT kafka_partition, next_offset, lag, messages AS last_batch, oldest_seconds AS behind_seconds, last_received_at AS newest_received_at, committed_at,
       extract(epoch FROM clock_timestamp() - committed_at) AS idle_seconds, lag_seen_at, problem
FROM partition_progress
ORDER BY kafka_partition

-- name: lag
SELECT max(oldest_seconds) AS "behind", extract(epoch FROM clock_timestamp() - max(committed_at)) AS "since the last commit"
FROM partition_progress

-- name: waiting
SELECT sum(lag) AS "records" FROM partition_progress

-- name: spool
SELECT sum(spooled) AS "spooled", sum(in_flight) AS "in flight" FROM audit_daemon

-- name: daemons
SELECT client_id, reported_at, received, delivered, spooled, in_flight, dead_lettered, given_up, missing, sessions_lost, difference, problem
FROM audit_daemon
ORDER BY client_id

-- name: differences
SELECT (SELECT count(*) FROM quality_open WHERE rule IN ('ledger_continuous', 'rollup_equals_source', 'kafka_log_cut')) AS "ledger and rollups",
       (SELECT count(*) FROM audit_daemon WHERE problem IS NOT NULL) AS "ingest daemons"

-- name: incidents
SELECT count(*) FILTER (WHERE severity = 'ERROR') AS "errors", count(*) FILTER (WHERE severity = 'WARN') AS "warnings" FROM quality_open

-- name: quarantine_now
SELECT count(*) AS "quarantined"
FROM quarantine_named
WHERE received_at >= greatest($__timeFrom()::timestamptz, $__timeTo()::timestamptz - interval '1 day') AND received_at <= $__timeTo()

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
WHERE hour = time_bucket('1 hour', $__timeTo()::timestamptz)
GROUP BY 1, 2
ORDER BY messages DESC, tenant_id, project_id
LIMIT 20

-- name: losses
SELECT committed_at AS "time", 'Partition ' || kafka_partition || ', offsets ' || from_offset || ' to ' || to_offset - 1 || coalesce(': ' || detail, '') AS text,
       'accepted loss' AS tags
FROM batch_named
WHERE kind = 'accepted_loss' AND $__timeFilter(committed_at)
ORDER BY committed_at DESC
LIMIT 100
