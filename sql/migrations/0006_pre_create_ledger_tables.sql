-- An offset names a record only together with the log it is an offset of: a broker that lost its unsynced end, a topic made anew or an
-- older disk put back give the same offsets to other records. Kafka's leader epoch finds that out; but epochs begin again with a new topic
-- or an older disk, so our own count, the generation, is what tells records apart.
CREATE TABLE kafka_offset (
    topic text NOT NULL,
    kafka_partition integer NOT NULL,
    next_offset bigint NOT NULL CHECK (next_offset >= 0),
    cluster_id text NOT NULL,
    topic_id text NOT NULL,
    first_offset bigint NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    log_generation integer NOT NULL DEFAULT 0,
    leader_epoch integer,
    verified_epoch integer,
    record_offset bigint,
    record_sha256 bytea,
    PRIMARY KEY (topic, kafka_partition)
) WITH (fillfactor = 50);
COMMENT ON TABLE kafka_offset IS
    'One row is one Kafka partition: everything below next_offset is in message or quarantine (dead_letter, for the dead-letter topic), '
    'or an accepted_loss of ledger. The truth; Kafka''s group offsets are not used.';
COMMENT ON COLUMN kafka_offset.first_offset IS 'Where draining began: above 0 when the log had lost its beginning before the first drain.';
COMMENT ON COLUMN kafka_offset.topic_id IS
    'Kafka''s id of the topic: another one means that the topic was deleted and created anew, with offsets from 0.';
COMMENT ON COLUMN kafka_offset.log_generation IS
    'Which log of the partition the offsets are of: 0 the first; one more each time the topic was made anew or the log turned out to '
    'have been cut.';
COMMENT ON COLUMN kafka_offset.leader_epoch IS
    'Leader epoch of the last record that was drained; null: not known (nothing drained, or by an earlier release).';
COMMENT ON COLUMN kafka_offset.verified_epoch IS
    'Leader epoch of the partition when the log was last seen to go on from what was drained; null: not seen yet.';
COMMENT ON COLUMN kafka_offset.record_offset IS
    'Offset of the last record that was drained: next_offset - 1, unless Kafka had no record there.';
COMMENT ON COLUMN kafka_offset.record_sha256 IS
    'SHA-256 of that record (Kafka''s timestamp, key, header, value); another one at its place means that the log is another one.';

-- How far Kafka's log reached when Dagster's sensor kafka_lag last looked: with kafka_offset, the records that wait.
CREATE TABLE kafka_watermark (
    topic text NOT NULL,
    kafka_partition integer NOT NULL,
    high bigint NOT NULL CHECK (high >= 0),
    seen_at timestamptz NOT NULL DEFAULT now(),
    problem text,
    PRIMARY KEY (topic, kafka_partition)
) WITH (fillfactor = 50);
COMMENT ON TABLE kafka_watermark IS 'One row is the end of one partition''s log (the offset that the next record gets), as last seen.';
COMMENT ON COLUMN kafka_watermark.seen_at IS
    'Older than half a minute: Dagster''s sensor kafka_lag does not run, or Kafka does not answer it.';
COMMENT ON COLUMN kafka_watermark.problem IS
    'Why the drain cannot simply go on at next_offset: the topic is another one, records were deleted, the log was cut. Null: it can.';

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
    kind text NOT NULL CHECK (kind IN ('drain', 'replay', 'accepted_loss', 'log_cut')),
    kafka_topic text NOT NULL,
    topic_id text NOT NULL,
    run_id text NOT NULL,
    detail text,
    empty_offsets bigint NOT NULL DEFAULT 0,
    log_generation integer NOT NULL DEFAULT 0,
    leader_epoch integer
);
SELECT create_hypertable('ledger', by_range('committed_at', INTERVAL '7 days'), create_default_indexes => false);
CREATE INDEX ledger_kafka_partition_from_offset_idx ON ledger (kafka_partition, from_offset);
CREATE INDEX ledger_committed_at_idx ON ledger (committed_at DESC);
-- The audit asks whether a partition ever had one; in a ledger of millions of batches there are none or a few.
CREATE INDEX ledger_accepted_loss_idx ON ledger (kafka_partition) WHERE kind = 'accepted_loss';
CREATE INDEX ledger_log_generation_idx ON ledger (kafka_partition, log_generation, from_offset) WHERE log_generation > 0;
CREATE INDEX ledger_log_cut_idx ON ledger (kafka_partition) WHERE kind = 'log_cut';
COMMENT ON TABLE ledger IS
    'One row is one batch: one committed offset range [from_offset, to_offset) of one Kafka partition, and what became of it.';
COMMENT ON COLUMN ledger.messages IS 'Rows written to message, those marked duplicate_of included.';
COMMENT ON COLUMN ledger.duplicates IS 'Rows of message or quarantine with duplicate_of: redelivered by MQTT.';
COMMENT ON COLUMN ledger.quarantined IS
    'Rows written to quarantine. In a row of kind replay all counters are changes: a message that leaves quarantine counts -1 here.';
COMMENT ON COLUMN ledger.measurement_duplicates IS 'Measurements not written because the series has the same value at that time.';
COMMENT ON COLUMN ledger.measurement_conflicts IS
    'Measurements not written because the series has another value at that time; the message keeps it.';
COMMENT ON COLUMN ledger.empty_offsets IS
    'Offsets of the range that Kafka holds no record for (transaction markers, compaction): messages + quarantined + empty_offsets = '
    'to_offset - from_offset.';
COMMENT ON COLUMN ledger.kind IS
    'drain: a batch. replay: changes by `iot replay`. accepted_loss: by `iot offsets accept`. log_cut: Kafka''s log was cut at '
    'from_offset, it had been drained to to_offset; log_generation is that of the log that begins there.';
COMMENT ON COLUMN ledger.leader_epoch IS
    'Leader epoch of the batch''s last record; of a log_cut: of the last record drained before it. Null: not known.';
COMMENT ON COLUMN ledger.detail IS
    'What was accepted; of a replay: records restored from Kafka (their drain counted them), and quarantined ones whose reason was '
    'brought up to date.';
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
    'One row sums one project''s records of one Kafka partition received in one hour (UTC); tenant and project are empty where the topic '
    'names none. Counters as in ledger.';
COMMENT ON COLUMN accounting_1h.kafka_partition IS
    'Kafka partition; -1: measurements of a simulated history, which were no messages, under the hour where each written stretch of time '
    'begins.';
CREATE INDEX accounting_1h_tenant_id_idx ON accounting_1h (tenant_id, project_id, hour);
