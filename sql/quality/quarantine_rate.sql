-- Projects of which too many messages of an hour are in quarantine, by reason.
WITH hour AS MATERIALIZED (
    SELECT date_trunc('hour', f.first_received_at) AS hour FROM quality_feed f WHERE f.feed_position > %(after)s
        AND f.feed_position <= %(upto)s AND f.records > 0
    UNION SELECT date_trunc('hour', f.last_received_at) FROM quality_feed f WHERE f.feed_position > %(after)s
        AND f.feed_position <= %(upto)s AND f.records > 0
), total AS (
    SELECT a.tenant_id, a.project_id, a.hour, sum(a.messages + a.quarantined) AS messages, sum(a.quarantined) AS quarantined,
        max(a.last_committed_at) AS committed_at
    FROM hour h JOIN accounting_1h a USING (hour) GROUP BY 1, 2, 3
), everything AS (
    SELECT t.hour, sum(t.messages) AS messages FROM total t GROUP BY 1
), suspect AS (
    SELECT t.tenant_id, t.project_id, t.hour, t.quarantined, CASE WHEN t.project_id = '' THEN e.messages ELSE t.messages END AS messages
    FROM total t JOIN everything e USING (hour)
    WHERE t.committed_at >= %(since)s
      AND t.quarantined > (SELECT min(r.threshold) FROM quality_rule r WHERE r.rule = 'quarantine_rate')
          * CASE WHEN t.project_id = '' THEN e.messages ELSE t.messages END
), reason AS (
    SELECT DISTINCT ON (s.tenant_id, s.project_id, q.reason) s.*, q.reason, q.rows, q.kafka_partition, q.kafka_offset, q.received_at,
        q.detail, q.topic
    FROM suspect s
    CROSS JOIN LATERAL (
        SELECT q.reason, count(*) AS rows, (array_agg(q.kafka_partition ORDER BY q.received_at DESC))[1] AS kafka_partition,
               (array_agg(q.kafka_offset ORDER BY q.received_at DESC))[1] AS kafka_offset, max(q.received_at) AS received_at,
               (array_agg(left(q.detail, 200) ORDER BY q.received_at DESC))[1] AS detail,
               (array_agg(left(q.topic, 200) ORDER BY q.received_at DESC))[1] AS topic
        FROM quarantine q
        WHERE q.received_at >= s.hour AND q.received_at < s.hour + interval '1 hour' AND q.tenant_id = s.tenant_id
            AND q.project_id = s.project_id
        GROUP BY 1
    ) q
    ORDER BY s.tenant_id, s.project_id, q.reason, s.hour DESC
)
INSERT INTO quality_found (tenant_id, project_id, device_id, metric, failed, value, threshold, window_from, window_to, message, example,
    kafka_partition, kafka_offset, severity, clear_seconds, hold_seconds)
SELECT r.tenant_id, r.project_id, '', r.reason, true, round(r.rows / r.messages, 4), s.threshold, r.hour, r.hour + interval '1 hour',
       r.rows || ' of ' || r.messages || ' messages are in quarantine: ' || r.reason,
       jsonb_build_object('received_at', r.received_at, 'topic', r.topic, 'detail', r.detail), r.kafka_partition, r.kafka_offset,
       s.severity, s.clear_seconds, s.hold_seconds
FROM reason r
CROSS JOIN LATERAL quality_setting('quarantine_rate', r.tenant_id, r.project_id, r.reason) s
WHERE s.enabled AND r.rows > s.threshold * r.messages AND r.messages >= (s.parameters ->> 'least_messages')::double precision
    AND r.rows >= 5
ON CONFLICT DO NOTHING
