-- Batches of earlier releases: what they did not store, Kafka had no record for.
ALTER TABLE ledger ADD COLUMN empty_offsets bigint NOT NULL DEFAULT 0;
UPDATE ledger SET empty_offsets = to_offset - from_offset - messages - quarantined
WHERE kind = 'drain' AND to_offset - from_offset <> messages + quarantined;
COMMENT ON COLUMN ledger.empty_offsets IS
    'Offsets of the range that Kafka holds no record for (transaction markers, compaction): messages + quarantined + empty_offsets = to_offset - from_offset.';
COMMENT ON COLUMN ledger.quarantined IS 'Rows written to quarantine. In a row of kind replay all counters are changes: a message that leaves quarantine counts -1 here.';
COMMENT ON TABLE kafka_offset IS
    'One row is one Kafka partition: everything below next_offset is in message or quarantine (dead_letter, for the dead-letter topic), or an accepted_loss of ledger. The truth; Kafka''s group offsets are not used.';
