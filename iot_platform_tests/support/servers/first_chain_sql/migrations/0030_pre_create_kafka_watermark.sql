-- How far Kafka's log reached when Dagster's sensor kafka_lag last looked: with kafka_offset, the records that wait.
CREATE TABLE kafka_watermark (
    topic text NOT NULL,
    kafka_partition integer NOT NULL,
    high bigint NOT NULL CHECK (high >= 0),
    seen_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (topic, kafka_partition)
) WITH (fillfactor = 50);
COMMENT ON TABLE kafka_watermark IS 'One row is the end of one partition''s log (the offset that the next record gets), as last seen.';
COMMENT ON COLUMN kafka_watermark.seen_at IS 'Older than half a minute: Dagster''s sensor kafka_lag does not run, or Kafka does not answer it.';
