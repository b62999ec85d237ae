-- Learns how each device usually sends; and each project (# as device), by its minutes with any message, because devices may report in
-- step. An interval at which freshness would tell of silence is a pause: it counts thrice the usual one, so that an outage does not make
-- the device look slow; several pauses over days are a habit.
WITH sent AS (
    SELECT c.tenant_id, c.project_id, c.device_id, q.received_at, q.kafka_partition, q.kafka_offset, q.received_at AS place, 1 AS messages
    FROM quality_message q JOIN source c USING (source_id)
    WHERE NOT q.duplicate AND q.received_at <= %(horizon)s
), every AS (
    SELECT * FROM sent
    UNION ALL
    SELECT s.tenant_id, s.project_id, '#', max(s.received_at),
        (array_agg(s.kafka_partition ORDER BY s.received_at DESC, s.kafka_offset DESC))[1],
           (array_agg(s.kafka_offset ORDER BY s.received_at DESC, s.kafka_offset DESC))[1], date_trunc('minute', s.received_at), count(*)
    FROM sent s WHERE s.device_id <> '#' GROUP BY 1, 2, 7
), step AS (
    SELECT e.*, lag(e.received_at) OVER w AS previous, lag(e.place) OVER w AS place_before
    FROM every e WINDOW w AS (PARTITION BY e.tenant_id, e.project_id, e.device_id ORDER BY e.received_at, e.kafka_offset)
), gap AS (
    SELECT s.*, k.weight, k.mean, coalesce(s.previous, k.last_received_at) AS since, k.most,
           extract(epoch FROM s.place - coalesce(s.place_before, CASE WHEN s.device_id = '#' THEN date_trunc('minute', k.last_received_at)
               ELSE k.last_received_at END))::double precision AS seconds,
           coalesce(k.weight >= 20 AND extract(epoch FROM k.last_received_at - k.first_received_at) >= 3 * k.most, false) AS settled
    FROM step s
    LEFT JOIN (
        SELECT k.*, k.gaps / greatest(k.weight, 1) AS mean,
            greatest(180, quality_silence(k.device_id = '#', k.weight, k.gaps, k.squares, k.longest_seconds, 16)) AS most
        FROM quality_cadence k
    ) k USING (tenant_id, project_id, device_id)
    WHERE k.last_received_at IS NULL OR s.received_at > k.last_received_at
), judged AS (
    SELECT g.*, CASE WHEN g.pause THEN 3 * g.mean WHEN g.seconds > 0 OR g.device_id <> '#' THEN g.seconds END AS counted
    FROM (SELECT g.*, g.settled AND g.seconds > g.most AS pause FROM gap g) g
), paused AS (  -- the longest of each weekday; one that is much longer than those since is forgotten after three weeks
    INSERT INTO quality_pause AS p (tenant_id, project_id, device_id, weekday, begun_at, seconds)
    SELECT DISTINCT ON (j.tenant_id, j.project_id, j.device_id, extract(isodow FROM j.since AT TIME ZONE 'UTC'))
           j.tenant_id, j.project_id, j.device_id, extract(isodow FROM j.since AT TIME ZONE 'UTC'), j.since, j.seconds
    FROM judged j WHERE j.pause
    ORDER BY j.tenant_id, j.project_id, j.device_id, extract(isodow FROM j.since AT TIME ZONE 'UTC'), j.seconds DESC
    ON CONFLICT (tenant_id, project_id, device_id, weekday) DO UPDATE SET begun_at = excluded.begun_at, seconds = excluded.seconds
        WHERE excluded.seconds >= 0.8 * p.seconds OR p.begun_at < excluded.begun_at - interval '22 days'
)
INSERT INTO quality_cadence AS k (tenant_id, project_id, device_id, first_received_at, last_received_at, last_partition, last_offset,
    messages,
    weight, gaps, squares, longest_seconds, pauses)
SELECT j.tenant_id, j.project_id, j.device_id, min(j.received_at), max(j.received_at),
       (array_agg(j.kafka_partition ORDER BY j.received_at DESC, j.kafka_offset DESC))[1],
       (array_agg(j.kafka_offset ORDER BY j.received_at DESC, j.kafka_offset DESC))[1], sum(j.messages), count(j.counted),
       coalesce(sum(j.counted), 0), coalesce(sum(j.counted ^ 2), 0), coalesce(max(j.counted) FILTER (WHERE NOT j.pause), 0),
       count(*) FILTER (WHERE j.pause)
FROM judged j
GROUP BY j.tenant_id, j.project_id, j.device_id
ORDER BY j.tenant_id, j.project_id, j.device_id
ON CONFLICT (tenant_id, project_id, device_id) DO UPDATE SET
    last_received_at = excluded.last_received_at, last_partition = excluded.last_partition, last_offset = excluded.last_offset,
    messages = k.messages + excluded.messages,
    weight = (k.weight + excluded.weight) * CASE WHEN k.weight + excluded.weight > 1000 THEN 0.5 ELSE 1 END,
    gaps = (k.gaps + excluded.gaps) * CASE WHEN k.weight + excluded.weight > 1000 THEN 0.5 ELSE 1 END,
    squares = (k.squares + excluded.squares) * CASE WHEN k.weight + excluded.weight > 1000 THEN 0.5 ELSE 1 END,
    longest_seconds = greatest(k.longest_seconds * CASE WHEN k.weight + excluded.weight > 1000 THEN 0.8
        ELSE 1 END, excluded.longest_seconds),
    pauses = least(k.pauses + excluded.pauses, 1000)
