CREATE TABLE kafka_offset (
    topic text NOT NULL,
    kafka_partition integer NOT NULL,
    next_offset bigint NOT NULL CHECK (next_offset >= 0),
    cluster_id text NOT NULL,
    topic_id text NOT NULL,
    first_offset bigint NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (topic, kafka_partition)
) WITH (fillfactor = 50);
COMMENT ON TABLE kafka_offset IS
    'One row is one Kafka partition: everything below next_offset is in message or quarantine (or an accepted_loss of ledger). The truth; Kafka''s group offsets are not used.';
COMMENT ON COLUMN kafka_offset.first_offset IS 'Where draining began: above 0 when the log had lost its beginning before the first drain.';
COMMENT ON COLUMN kafka_offset.topic_id IS 'Kafka''s id of the topic: another one means that the topic was deleted and created anew, with offsets from 0.';

-- A hypertable only so that old batches can be dropped by chunk; accounting_1h keeps the sums.
CREATE TABLE ledger (
    committed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    batch_id bigint GENERATED ALWAYS AS IDENTITY,
    from_offset bigint NOT NULL,
    to_offset bigint NOT NULL,
    first_received_at timestamptz,
    last_received_at timestamptz,
    kafka_partition integer NOT NULL,
    messages integer NOT NULL DEFAULT 0,
    duplicates integer NOT NULL DEFAULT 0,
    quarantined integer NOT NULL DEFAULT 0,
    measurements integer NOT NULL DEFAULT 0,
    measurement_duplicates integer NOT NULL DEFAULT 0,
    measurement_conflicts integer NOT NULL DEFAULT 0,
    kind text NOT NULL CHECK (kind IN ('drain', 'replay', 'accepted_loss')),
    kafka_topic text NOT NULL,
    topic_id text NOT NULL,
    run_id text NOT NULL,
    detail text
);
SELECT create_hypertable('ledger', by_range('committed_at', INTERVAL '7 days'), create_default_indexes => false);
CREATE INDEX ledger_kafka_partition_from_offset_idx ON ledger (kafka_partition, from_offset);
CREATE INDEX ledger_committed_at_idx ON ledger (committed_at DESC);
COMMENT ON TABLE ledger IS 'One row is one batch: one committed offset range [from_offset, to_offset) of one Kafka partition, and what became of it.';
COMMENT ON COLUMN ledger.messages IS 'Rows written to message, those marked duplicate_of included.';
COMMENT ON COLUMN ledger.duplicates IS 'Rows of message or quarantine with duplicate_of: redelivered by MQTT.';
COMMENT ON COLUMN ledger.quarantined IS 'Rows written to quarantine. messages + quarantined = records in the range.';
COMMENT ON COLUMN ledger.measurement_duplicates IS 'Measurements not written because the series has the same value at that time.';
COMMENT ON COLUMN ledger.measurement_conflicts IS 'Measurements not written because the series has another value at that time; the message keeps it.';
COMMENT ON COLUMN ledger.run_id IS 'Dagster run, or another name of what committed it.';

CREATE TABLE accounting_1h (
    hour timestamptz NOT NULL,
    tenant_id text NOT NULL,
    project_id text NOT NULL,
    kafka_partition integer NOT NULL,
    messages bigint NOT NULL,
    duplicates bigint NOT NULL,
    quarantined bigint NOT NULL,
    measurements bigint NOT NULL,
    measurement_duplicates bigint NOT NULL,
    measurement_conflicts bigint NOT NULL,
    first_offset bigint NOT NULL,
    last_offset bigint NOT NULL,
    last_received_at timestamptz NOT NULL,
    last_committed_at timestamptz NOT NULL,
    PRIMARY KEY (hour, tenant_id, project_id, kafka_partition)
) WITH (fillfactor = 50);
COMMENT ON TABLE accounting_1h IS
    'One row sums one project''s records of one Kafka partition received in one hour (UTC); tenant and project are empty where the topic names none. Counters as in ledger.';
