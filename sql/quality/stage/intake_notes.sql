-- Notes get the queue's last position; a place of their own where no batch is new.
WITH taken AS (
    DELETE FROM quality_note WHERE ctid = ANY (ARRAY(SELECT n.ctid FROM quality_note n LIMIT %(most)s))
        RETURNING time_from, time_to, series_id
), place AS (
    INSERT INTO quality_feed (batch_id, committed_at, from_offset, to_offset, kafka_partition, records, kind)
    SELECT -1 - coalesce(max(f.feed_position), 0), clock_timestamp(), 0, 0, 0, 0, 'notes' FROM quality_feed f
    HAVING EXISTS (SELECT FROM taken) RETURNING feed_position
)
INSERT INTO quality_late (feed_position, time_from, time_to, series_id)
SELECT p.feed_position, t.time_from, t.time_to, t.series_id FROM taken t CROSS JOIN place p
