-- Messages of the drained batches of this stretch; times and offsets as constants, so that only some chunks and page ranges are read.
INSERT INTO quality_message
SELECT m.received_at, m.kafka_offset, m.source_id, m.kafka_partition, m.time_source = 1, m.duplicate_of IS NOT NULL
FROM (
    SELECT f.kafka_partition, f.log_generation, range_agg(int8range(f.from_offset, f.to_offset)) AS ranges FROM quality_feed f
    WHERE f.feed_position > %(after)s AND f.feed_position <= %(upto)s AND f.kind = 'drain' AND f.records > 0 GROUP BY 1, 2
) p
JOIN message m ON m.kafka_partition = p.kafka_partition AND m.log_generation = p.log_generation AND p.ranges @> m.kafka_offset
WHERE m.received_at >= %(first_received)s AND m.received_at <= %(last_received)s
  AND m.kafka_offset >= %(first_offset)s AND m.kafka_offset < %(end_offset)s
  AND NOT EXISTS (  -- not of a tenant whose deletion has begun to take its names: nothing is to be learnt of it
    SELECT FROM tenant_leaving l JOIN source s ON s.tenant_id = l.tenant_id AND s.source_id <= l.last_source_id
        WHERE s.source_id = m.source_id)
