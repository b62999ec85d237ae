-- Names for people and Grafana. Columns may be added at the end only: CREATE OR REPLACE VIEW allows nothing else.
CREATE OR REPLACE VIEW measurement_named AS
SELECT m.time, s.tenant_id, s.project_id, s.device_id, s.metric, m.value, m.value_int, m.value_text, m.series_id, s.unit, m.flags
FROM measurement m
JOIN series s USING (series_id);
COMMENT ON VIEW measurement_named IS 'One row is one measurement with the names of its series.';

CREATE OR REPLACE VIEW measurement_by_series AS
SELECT m.time, s.tenant_id, s.project_id, s.device_id, s.metric, m.value, m.value_int, m.value_text, s.series_id, s.unit, m.flags
FROM series s
CROSS JOIN LATERAL (SELECT m.* FROM measurement m WHERE m.series_id = s.series_id ORDER BY m.time) m;
COMMENT ON VIEW measurement_by_series IS
    'One row is one measurement with the names of its series, as measurement_named has it, for questions about some devices, projects or '
    'series: quick in compressed chunks, too. Over all series of some hours measurement_named is quicker.';

CREATE OR REPLACE VIEW message_named AS
SELECT m.received_at, s.topic, s.tenant_id, s.project_id, s.device_id, m.kafka_partition, m.kafka_offset, m.payload, m.duplicate_of,
       CASE m.time_source WHEN 1 THEN 'payload' ELSE 'receive' END AS time_source,
       c.client_id, c.connection_number, m.sequence, m.packet_id,
       (m.flags & 1) <> 0 AS dup, (m.flags & 2) <> 0 AS retain, ((m.flags >> 2) & 3)::smallint AS qos,
       m.source_id, m.connection_id, m.log_generation,
       CASE WHEN m.duplicate_of IS NOT NULL THEN coalesce(m.duplicate_of_generation, m.log_generation) END AS duplicate_of_generation,
       m.time_shift_us
FROM message m
JOIN source s USING (source_id)
LEFT JOIN mqtt_connection c USING (connection_id);
COMMENT ON VIEW message_named IS 'One row is one message with its topic, names and MQTT details.';

CREATE OR REPLACE VIEW quarantine_named AS
SELECT q.received_at, q.topic, q.tenant_id, q.project_id, q.reason, q.detail, q.kafka_partition, q.kafka_offset, q.payload, q.duplicate_of,
       q.topic_bytes, c.client_id, c.connection_number, q.sequence, q.packet_id,
       (q.flags & 1) <> 0 AS dup, (q.flags & 2) <> 0 AS retain, ((q.flags >> 2) & 3)::smallint AS qos,
       q.connection_id, q.log_generation,
       CASE WHEN q.duplicate_of IS NOT NULL THEN coalesce(q.duplicate_of_generation, q.log_generation) END AS duplicate_of_generation
FROM quarantine q
LEFT JOIN mqtt_connection c USING (connection_id);
COMMENT ON VIEW quarantine_named IS 'One row is one quarantined message with its MQTT details.';

CREATE OR REPLACE VIEW latest_named AS
SELECT l.time, s.tenant_id, s.project_id, s.device_id, s.metric, l.value, l.value_int, l.value_text, l.series_id,
       coalesce(nullif(i.unit, ''), s.unit) AS unit, l.flags, coalesce(i.display_name, '') AS display_name, i.valid_min, i.valid_max
FROM series_latest l
JOIN series s USING (series_id)
LEFT JOIN series_info i USING (series_id);  -- planned away where none of its columns is asked for
COMMENT ON VIEW latest_named IS 'One row is the latest measurement of one series, with its names and what people say of it.';

CREATE OR REPLACE VIEW tenant_leaving AS
SELECT deletion_id, tenant_id, last_series_id, last_source_id FROM tenant_deletion
WHERE cut_at IS NOT NULL AND names_gone_at IS NULL AND finished_at IS NULL;
COMMENT ON VIEW tenant_leaving IS
    'One row is one tenant that is past the cut of its deletion and still has names: its series and sources up to these ids belong to '
    'nobody. Usually none.';

-- waiting_since is found by the index on partition and offset.
CREATE OR REPLACE VIEW sink_progress AS
SELECT s.sink, k.topic, k.kafka_partition, o.log_generation, o.next_offset, k.log_generation AS committed_generation,
       k.next_offset AS committed_offset,
       CASE WHEN o.log_generation = k.log_generation THEN k.next_offset - o.next_offset ELSE k.next_offset END AS lag,
       (SELECT l.committed_at FROM ledger l
        WHERE l.kafka_partition = k.kafka_partition AND l.log_generation = o.log_generation AND l.from_offset >= o.next_offset
          AND l.kind = 'drain' AND l.kafka_topic = k.topic
        ORDER BY l.from_offset LIMIT 1) AS waiting_since
FROM sink s
JOIN sink_offset o USING (sink)
JOIN kafka_offset k USING (topic, kafka_partition);
COMMENT ON VIEW sink_progress IS
    'One row is how far one sink is in one partition, of Kafka or of imports, and since when the oldest batch that it lacks is committed.';
