-- An offset names a record only together with the log it is an offset of: a broker that lost its unsynced end, a topic made anew or an older
-- disk put back give the same offsets to other records. Kafka's leader epoch finds that out; but epochs begin again with a new topic or an
-- older disk, so our own count, the generation, is what tells records apart.
ALTER TABLE kafka_offset ADD COLUMN log_generation integer NOT NULL DEFAULT 0;
ALTER TABLE kafka_offset ADD COLUMN leader_epoch integer;
ALTER TABLE kafka_offset ADD COLUMN verified_epoch integer;
ALTER TABLE kafka_offset ADD COLUMN record_offset bigint;
ALTER TABLE kafka_offset ADD COLUMN record_sha256 bytea;
COMMENT ON COLUMN kafka_offset.log_generation IS
    'Which log of the partition the offsets are of: 0 the first; one more each time the topic was made anew or the log turned out to have been cut.';
COMMENT ON COLUMN kafka_offset.leader_epoch IS 'Leader epoch of the last record that was drained; null: not known (nothing drained, or by an earlier release).';
COMMENT ON COLUMN kafka_offset.verified_epoch IS 'Leader epoch of the partition when the log was last seen to go on from what was drained; null: not seen yet.';
COMMENT ON COLUMN kafka_offset.record_offset IS 'Offset of the last record that was drained: next_offset - 1, unless Kafka had no record there.';
COMMENT ON COLUMN kafka_offset.record_sha256 IS 'SHA-256 of that record (Kafka''s timestamp, key, header, value); another one at its place means that the log is another one.';

ALTER TABLE message ADD COLUMN log_generation integer NOT NULL DEFAULT 0;
ALTER TABLE message ADD COLUMN duplicate_of_generation integer;
COMMENT ON COLUMN message.log_generation IS 'Which log of the Kafka partition the offset is of (kafka_offset.log_generation): partition, generation and offset name a record.';
COMMENT ON COLUMN message.duplicate_of_generation IS 'Generation of the log that duplicate_of is an offset of; null: the row''s own.';
ALTER TABLE quarantine ADD COLUMN log_generation integer NOT NULL DEFAULT 0;
ALTER TABLE quarantine ADD COLUMN duplicate_of_generation integer;
ALTER TABLE removed_record ADD COLUMN log_generation integer NOT NULL DEFAULT 0;
ALTER TABLE quality_feed ADD COLUMN log_generation integer NOT NULL DEFAULT 0;
ALTER TABLE tenant_deletion_offset ADD COLUMN log_generation integer NOT NULL DEFAULT 0;
COMMENT ON TABLE tenant_deletion_offset IS
    'One row is where a Kafka partition was drained to at the cut of a deletion: the tenant''s records of earlier logs, and of this one below next_offset, never come back.';

ALTER TABLE dead_letter ADD COLUMN log_generation integer NOT NULL DEFAULT 0;
ALTER TABLE dead_letter DROP CONSTRAINT dead_letter_pkey, ADD PRIMARY KEY (topic_id, kafka_partition, log_generation, kafka_offset);

ALTER TABLE ledger ADD COLUMN log_generation integer NOT NULL DEFAULT 0;
ALTER TABLE ledger ADD COLUMN leader_epoch integer;
ALTER TABLE ledger DROP CONSTRAINT ledger_kind_check;
ALTER TABLE ledger ADD CONSTRAINT ledger_kind_check CHECK (kind IN ('drain', 'replay', 'accepted_loss', 'log_cut'));
COMMENT ON COLUMN ledger.kind IS
    'drain: a batch. replay: changes by `iot replay`. accepted_loss: by `iot offsets accept`. log_cut: Kafka''s log was cut at from_offset, it had been drained to to_offset; log_generation is that of the log that begins there.';
COMMENT ON COLUMN ledger.leader_epoch IS 'Leader epoch of the batch''s last record; of a log_cut: of the last record drained before it. Null: not known.';
CREATE INDEX ledger_log_generation_idx ON ledger (kafka_partition, log_generation, from_offset) WHERE log_generation > 0;
CREATE INDEX ledger_log_cut_idx ON ledger (kafka_partition) WHERE kind = 'log_cut';

ALTER TABLE ledger_removed ADD COLUMN log_generation integer NOT NULL DEFAULT 0;
ALTER TABLE ledger_removed DROP CONSTRAINT ledger_removed_pkey, ADD PRIMARY KEY (kafka_topic, topic_id, kafka_partition, log_generation);

-- Their columns change (sql/repeatable/audit_views.sql).
DROP VIEW IF EXISTS audit_offset;
DROP VIEW IF EXISTS audit_sequence;
DROP FUNCTION IF EXISTS audit_sequences(timestamptz, integer);
DROP FUNCTION IF EXISTS audit_offsets(timestamptz);
DROP FUNCTION IF EXISTS audit_offsets(timestamptz, timestamptz);
DROP FUNCTION IF EXISTS audit_ranges(timestamptz, timestamptz);
DROP FUNCTION IF EXISTS audit_rows(timestamptz, timestamptz);

ALTER TABLE kafka_watermark ADD COLUMN problem text;
COMMENT ON COLUMN kafka_watermark.problem IS 'Why the drain cannot simply go on at next_offset: the topic is another one, records were deleted, the log was cut. Null: it can.';
