-- Logs of Kafka partitions that turned out to have been cut (lost their end, or an older disk was put back) within window_seconds.
WITH cut AS (
    SELECT l.kafka_topic, l.kafka_partition, count(*) AS cuts, max(l.committed_at) AS committed_at,
        max(l.to_offset - l.from_offset) AS forgotten,
           (array_agg(l.detail ORDER BY l.committed_at DESC))[1] AS detail,
           (array_agg(l.from_offset ORDER BY l.committed_at DESC))[1] AS from_offset,
           (array_agg(l.to_offset ORDER BY l.committed_at DESC))[1] AS to_offset,
           (array_agg(l.leader_epoch ORDER BY l.committed_at DESC))[1] AS leader_epoch
    FROM ledger l CROSS JOIN LATERAL quality_setting('kafka_log_cut', '', '', '') t
    WHERE l.kind = 'log_cut' AND l.committed_at > %(horizon)s::timestamptz - make_interval(secs => t.window_seconds) GROUP BY 1, 2
)
INSERT INTO quality_found (tenant_id, project_id, device_id, metric, failed, value, threshold, window_from, window_to, message, example,
    kafka_partition, kafka_offset, severity, clear_seconds, hold_seconds)
SELECT '', '', '', c.kafka_topic || '/' || c.kafka_partition, true, c.cuts, t.threshold,
       %(horizon)s::timestamptz - make_interval(secs => t.window_seconds), %(horizon)s, c.detail,
       jsonb_build_object('kafka_topic', c.kafka_topic, 'cut_at', c.from_offset, 'drained_to', c.to_offset, 'leader_epoch', c.leader_epoch,
           'committed_at', c.committed_at), c.kafka_partition, c.from_offset, t.severity, t.clear_seconds, t.hold_seconds
FROM cut c
CROSS JOIN LATERAL quality_setting('kafka_log_cut', '', '', '') t
WHERE t.enabled AND c.cuts > t.threshold
ON CONFLICT DO NOTHING
