-- Projects whose messages of an hour were largely there already: delivered again by MQTT, or the same measurements in new messages.
WITH hour AS (
    SELECT date_trunc('hour', f.first_received_at) AS hour FROM quality_feed f WHERE f.feed_position > %(after)s
        AND f.feed_position <= %(upto)s AND f.records > 0
    UNION SELECT date_trunc('hour', f.last_received_at) FROM quality_feed f WHERE f.feed_position > %(after)s
        AND f.feed_position <= %(upto)s AND f.records > 0
), counted AS (
    SELECT a.tenant_id, a.project_id, a.hour, sum(a.messages + a.quarantined) AS messages, sum(a.duplicates) AS duplicates,
           sum(a.measurements + a.measurement_duplicates + a.measurement_conflicts) AS measurements,
           sum(a.measurement_duplicates) AS measurement_duplicates,
           max(a.last_offset) AS last_offset, (array_agg(a.kafka_partition ORDER BY a.last_offset DESC))[1] AS kafka_partition
    FROM hour h JOIN accounting_1h a USING (hour)
    WHERE a.project_id <> '' GROUP BY 1, 2, 3
    HAVING max(a.last_committed_at) >= %(since)s
), share AS (
    SELECT DISTINCT ON (c.tenant_id, c.project_id) c.*,
           greatest(c.duplicates / greatest(c.messages, 1),
               c.measurement_duplicates / greatest(c.measurements, 1))::double precision AS share
    FROM counted c ORDER BY c.tenant_id, c.project_id, c.hour DESC
)
INSERT INTO quality_found (tenant_id, project_id, device_id, metric, failed, value, threshold, window_from, window_to, message, example,
    kafka_partition, kafka_offset, severity, clear_seconds, hold_seconds)
SELECT c.tenant_id, c.project_id, '', '', true, round(c.share::numeric, 4), s.threshold, c.hour, c.hour + interval '1 hour',
       c.duplicates || ' of ' || c.messages || ' messages and ' || c.measurement_duplicates || ' of ' || c.measurements ||
           ' measurements were there already',
       jsonb_build_object('messages', c.messages, 'duplicates', c.duplicates, 'measurement_duplicates', c.measurement_duplicates),
       c.kafka_partition, c.last_offset, s.severity, s.clear_seconds, s.hold_seconds
FROM share c
CROSS JOIN LATERAL quality_setting('duplicate_rate', c.tenant_id, c.project_id, '') s
WHERE c.share > (SELECT min(r.threshold) FROM quality_rule r WHERE r.rule = 'duplicate_rate')
  AND s.enabled AND c.share > s.threshold AND c.messages >= (s.parameters ->> 'least_messages')::double precision
ON CONFLICT DO NOTHING
