-- Learns how each device usually sends. An interval counts at most ten times the usual one. One far beyond the usual is a pause: it counts
-- thrice the usual one, so that an outage does not make the device look slow, and several pauses over days are a habit.
WITH step AS (
    SELECT c.tenant_id, c.project_id, c.device_id, q.received_at, q.kafka_partition, q.kafka_offset,
           lag(q.received_at) OVER (PARTITION BY c.tenant_id, c.project_id, c.device_id ORDER BY q.received_at, q.kafka_offset) AS previous
    FROM quality_message q JOIN source c USING (source_id)
    WHERE NOT q.duplicate AND q.received_at <= %(horizon)s
), gap AS (
    SELECT s.*, k.messages, k.weight, k.mean, k.deviation,
           extract(epoch FROM s.received_at - coalesce(s.previous, k.last_received_at))::double precision AS seconds
    FROM step s
    LEFT JOIN (
        SELECT k.*, k.gaps / greatest(k.weight, 1) AS mean,
               sqrt(greatest(k.squares / greatest(k.weight, 1) - (k.gaps / greatest(k.weight, 1)) ^ 2, 0)) AS deviation
        FROM quality_cadence k
    ) k USING (tenant_id, project_id, device_id)
    WHERE k.last_received_at IS NULL OR s.received_at > k.last_received_at
), judged AS (
    SELECT g.*, CASE WHEN g.pause THEN 3 * g.mean WHEN g.weight >= 20 THEN least(g.seconds, greatest(10 * g.mean, 1)) ELSE g.seconds END AS counted
    FROM (SELECT g.*, coalesce(g.weight >= 20 AND g.seconds > greatest(180, 5 * g.mean + 16 * g.deviation), false) AS pause FROM gap g) g
)
INSERT INTO quality_cadence AS k (tenant_id, project_id, device_id, first_received_at, last_received_at, last_partition, last_offset, messages,
    weight, gaps, squares, pauses, pause_seconds)
SELECT j.tenant_id, j.project_id, j.device_id, min(j.received_at), max(j.received_at),
       (array_agg(j.kafka_partition ORDER BY j.received_at DESC, j.kafka_offset DESC))[1],
       (array_agg(j.kafka_offset ORDER BY j.received_at DESC, j.kafka_offset DESC))[1], count(*), count(j.counted),
       coalesce(sum(j.counted), 0), coalesce(sum(j.counted ^ 2), 0), count(*) FILTER (WHERE j.pause), coalesce(max(j.seconds) FILTER (WHERE j.pause), 0)
FROM judged j
GROUP BY j.tenant_id, j.project_id, j.device_id
ORDER BY j.tenant_id, j.project_id, j.device_id
ON CONFLICT (tenant_id, project_id, device_id) DO UPDATE SET
    last_received_at = excluded.last_received_at, last_partition = excluded.last_partition, last_offset = excluded.last_offset,
    messages = k.messages + excluded.messages,
    weight = (k.weight + excluded.weight) * CASE WHEN k.weight + excluded.weight > 1000 THEN 0.5 ELSE 1 END,
    gaps = (k.gaps + excluded.gaps) * CASE WHEN k.weight + excluded.weight > 1000 THEN 0.5 ELSE 1 END,
    squares = (k.squares + excluded.squares) * CASE WHEN k.weight + excluded.weight > 1000 THEN 0.5 ELSE 1 END,
    pauses = least(k.pauses + excluded.pauses, 1000),
    pause_seconds = CASE WHEN excluded.pauses = 0 THEN k.pause_seconds ELSE greatest(k.pause_seconds * 0.8, excluded.pause_seconds) END
