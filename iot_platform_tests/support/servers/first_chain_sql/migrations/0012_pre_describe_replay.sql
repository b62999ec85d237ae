-- What rows of kind replay mean; the columns are those of a drain's batch.
COMMENT ON COLUMN ledger.kind IS
    'drain: records [from_offset, to_offset) were written. replay: some of the records in the range were decoded again, and all counters are changes. accepted_loss: the range is given up.';
COMMENT ON COLUMN ledger.detail IS
    'What was accepted; of a replay: records restored from Kafka (their drain counted them), and quarantined ones whose reason was brought up to date.';
