-- Batches that became visible since: looked for again for a while, because a batch may commit after others that began later.
INSERT INTO quality_feed (batch_id, committed_at, from_offset, to_offset, first_received_at, last_received_at, kafka_partition,
    log_generation, records, kind)
SELECT l.batch_id, l.committed_at, l.from_offset, l.to_offset, l.first_received_at, l.last_received_at, l.kafka_partition, l.log_generation,
       greatest(l.messages + l.quarantined, 0), l.kind
FROM ledger l
WHERE l.committed_at > %(since)s AND l.kind IN ('drain', 'replay') AND NOT EXISTS (SELECT FROM quality_feed f WHERE f.batch_id = l.batch_id)
ORDER BY l.committed_at, l.batch_id
LIMIT %(most)s
