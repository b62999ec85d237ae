-- A Kafka record for each finding that has none: of the device's messages of this stretch, the one received when its clock showed the
-- example's time.
UPDATE quality_found f SET kafka_partition = n.kafka_partition, kafka_offset = n.kafka_offset
FROM (
    SELECT DISTINCT ON (f.tenant_id, f.project_id, f.device_id, f.metric)
           f.tenant_id, f.project_id, f.device_id, f.metric, q.kafka_partition, q.kafka_offset
    FROM quality_found f
    JOIN source c ON c.tenant_id = f.tenant_id AND c.project_id = f.project_id AND c.device_id = f.device_id
    JOIN quality_message q USING (source_id)
    LEFT JOIN quality_cadence k ON k.tenant_id = f.tenant_id AND k.project_id = f.project_id AND k.device_id = f.device_id
    WHERE f.failed AND f.kafka_offset IS NULL AND NOT q.duplicate
    ORDER BY f.tenant_id, f.project_id, f.device_id, f.metric,
             abs(extract(epoch FROM q.received_at - coalesce((f.example ->> 'time')::timestamptz, f.window_to)) + coalesce(k.skew_seconds,
                 0)), q.kafka_offset
) n
WHERE n.tenant_id = f.tenant_id AND n.project_id = f.project_id AND n.device_id = f.device_id AND n.metric = f.metric
    AND f.kafka_offset IS NULL
