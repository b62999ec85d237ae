-- What the dashboards of grafana/ read besides the views of views.sql: tables under a name of their own, so that a dashboard names views
-- only and a table may change behind them. Columns may be added at the end only.
CREATE OR REPLACE VIEW project_named AS
SELECT tenant_id, project_id, first_seen_at, series_count, source_count FROM project;
COMMENT ON VIEW project_named IS 'One row is one project of one tenant.';

CREATE OR REPLACE VIEW series_named AS
SELECT s.series_id, s.tenant_id, s.project_id, s.device_id, s.metric, coalesce(nullif(i.unit, ''), s.unit) AS unit, s.first_seen_at,
       coalesce(i.display_name, '') AS display_name, coalesce(i.description, '') AS description, i.valid_min, i.valid_max
FROM series s
LEFT JOIN series_info i USING (series_id);
COMMENT ON VIEW series_named IS
    'One row is one series: one metric of one device, with what people say of it; unit: theirs, else the one that the payload named.';

CREATE OR REPLACE VIEW source_named AS
SELECT source_id, tenant_id, project_id, device_id, topic, first_seen_at FROM source;
COMMENT ON VIEW source_named IS 'One row is one origin of messages: an MQTT topic and the device its messages name.';

CREATE OR REPLACE VIEW batch_named AS
SELECT committed_at, kafka_partition, kind, from_offset, to_offset, messages, duplicates, quarantined, measurements, measurement_duplicates,
       measurement_conflicts, first_received_at, last_received_at,
       extract(epoch FROM committed_at - first_received_at)::double precision AS oldest_seconds,
       extract(epoch FROM committed_at - last_received_at)::double precision AS newest_seconds,
       run_id, detail, log_generation, leader_epoch
FROM ledger;
COMMENT ON VIEW batch_named IS
    'One row is one batch of the ledger. oldest_seconds and newest_seconds: from receipt by the ingest daemon to commit, of its first '
    'and its last message.';

CREATE OR REPLACE VIEW traffic_1h AS
SELECT hour, tenant_id, project_id, kafka_partition, messages, duplicates, quarantined, measurements, measurement_duplicates,
    measurement_conflicts,
       last_received_at, last_committed_at, conflict_example
FROM accounting_1h;
COMMENT ON VIEW traffic_1h IS
    'One row sums one project''s records of one Kafka partition received in one hour (UTC). Counters as in ledger.';

CREATE OR REPLACE VIEW partition_progress AS
SELECT topic, kafka_partition, k.next_offset, k.updated_at AS committed_at, b.last_received_at, b.oldest_seconds, b.newest_seconds,
    b.messages,
       w.high - coalesce(k.next_offset, 0) AS lag, w.seen_at AS lag_seen_at, w.problem
FROM kafka_offset k
FULL JOIN kafka_watermark w USING (topic, kafka_partition)
LEFT JOIN LATERAL (
    SELECT l.last_received_at, extract(epoch FROM l.committed_at - l.first_received_at)::double precision AS oldest_seconds,
           extract(epoch FROM l.committed_at - l.last_received_at)::double precision AS newest_seconds,
           l.messages + l.quarantined AS messages
    FROM ledger l
    WHERE l.kafka_partition = k.kafka_partition AND l.kind = 'drain' AND l.kafka_topic = k.topic AND l.topic_id = k.topic_id
      AND l.log_generation = k.log_generation
    ORDER BY l.from_offset DESC LIMIT 1
) b ON true
WHERE topic <> 'import';  -- those of iot import wait for nobody
COMMENT ON VIEW partition_progress IS
    'One row is one Kafka partition: how far the drain is, and how old the messages of its last batch were when they were committed, and '
    'how many records waited in Kafka when Dagster''s sensor kafka_lag last looked (null: it has not looked yet; negative: Kafka has fewer '
    'records than were drained, and problem says why).';

CREATE OR REPLACE VIEW quality_incident_named AS
SELECT incident_id, opened_at, closed_at, last_seen_at, rule, severity, tenant_id, project_id, device_id, metric, message, value, threshold,
    flaps,
       evaluations, kafka_partition, kafka_offset, example, silenced_until, silence_reason, silenced_by, acknowledged_at, acknowledged_by
FROM quality_incident;
COMMENT ON VIEW quality_incident_named IS 'One row is one quality incident, open (closed_at is null) or ended.';

CREATE OR REPLACE VIEW quality_progress AS
SELECT w.rule, r.description, r.severity, r.enabled, w.evaluated_at, w.horizon, w.seconds, w.failing, w.error
FROM quality_watermark w
JOIN quality_rule r ON r.rule = w.rule AND r.tenant_id = '' AND r.project_id = '' AND r.metric = '';
COMMENT ON VIEW quality_progress IS
    'One row is one quality rule: when it was last evaluated, how long that took and how many subjects failed.';
