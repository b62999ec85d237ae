-- What a sink looked at of the ledger, for the audit: whether it left anything out.
CREATE TABLE sink_range (
    begun_at timestamptz NOT NULL DEFAULT now(),
    ended_at timestamptz NOT NULL DEFAULT now(),
    from_offset bigint NOT NULL,
    to_offset bigint NOT NULL,
    records bigint NOT NULL,
    removed bigint NOT NULL,
    values_read bigint NOT NULL,
    points_found bigint NOT NULL,
    points_sent bigint NOT NULL,
    points_refused bigint NOT NULL,
    kafka_partition integer NOT NULL,
    log_generation integer NOT NULL,
    by_time boolean NOT NULL,
    sink text NOT NULL REFERENCES sink,
    topic text NOT NULL,
    PRIMARY KEY (sink, topic, kafka_partition, log_generation, from_offset),
    CHECK (from_offset < to_offset)
) WITH (fillfactor = 50);
COMMENT ON TABLE sink_range IS
    'One row is one range of offsets [from_offset, to_offset) of one Kafka partition that a sink followed, at most an hour''s; kept for '
    '35 days.';
COMMENT ON COLUMN sink_range.records IS 'Its records that stood in message or quarantine then.';
COMMENT ON COLUMN sink_range.removed IS 'Its records in the ledger that did not.';
COMMENT ON COLUMN sink_range.values_read IS 'Measurements that the records hold, repetitions and conflicts included.';
COMMENT ON COLUMN sink_range.points_found IS 'Measurements that stood at their series and times; those of deleted tenants aside.';
COMMENT ON COLUMN sink_range.points_sent IS 'Of these, how many the sink took.';
COMMENT ON COLUMN sink_range.by_time IS
    'Its records do not tell any more all that they brought, so a copy by time was noted (sink_backfill).';
