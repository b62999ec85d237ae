-- The audit asks whether a partition ever had one; in a ledger of millions of batches there are none or a few.
CREATE INDEX ledger_accepted_loss_idx ON ledger (kafka_partition) WHERE kind = 'accepted_loss';
