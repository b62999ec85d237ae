-- Second stores (InfluxDB) that follow the ledger: how far each is, what it refused, what else it has to know.
CREATE TABLE sink (
    sink text PRIMARY KEY CHECK (sink ~ '^[a-z][a-z0-9_-]{0,31}$'),
    begun_at timestamptz NOT NULL DEFAULT now(),
    seen_at timestamptz NOT NULL DEFAULT now(),
    written_at timestamptz,
    error_since timestamptz,
    written bigint NOT NULL DEFAULT 0,
    refused bigint NOT NULL DEFAULT 0,
    retries bigint NOT NULL DEFAULT 0,
    deletion_id integer NOT NULL DEFAULT 0,
    error text
) WITH (fillfactor = 50);
COMMENT ON TABLE sink IS 'One row is one second store that follows the ledger (IOT_INFLUX_URL), and what its runs counted.';
COMMENT ON COLUMN sink.seen_at IS 'When a run last worked for it, or tried to.';
COMMENT ON COLUMN sink.written_at IS 'When it last answered that it has what it was sent.';
COMMENT ON COLUMN sink.error_since IS 'Since when it has not taken what it is sent; null: it takes it.';
COMMENT ON COLUMN sink.written IS 'Points that it took, repetitions included.';
COMMENT ON COLUMN sink.deletion_id IS 'Deletions of tenants up to this one were carried out there, too.';

CREATE TABLE sink_offset (
    sink text NOT NULL REFERENCES sink,
    topic text NOT NULL,
    kafka_partition integer NOT NULL,
    log_generation integer NOT NULL,
    next_offset bigint NOT NULL CHECK (next_offset >= 0),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (sink, topic, kafka_partition)
) WITH (fillfactor = 50);
COMMENT ON TABLE sink_offset IS
    'One row is how far a sink is in the ledger of one Kafka partition: it has what the main store has of everything below next_offset of '
    'this generation of the log (kafka_offset.log_generation), and of earlier ones.';

CREATE TABLE sink_replay (
    committed_at timestamptz NOT NULL,
    batch_id bigint NOT NULL,
    sink text NOT NULL REFERENCES sink,
    PRIMARY KEY (sink, batch_id)
);
COMMENT ON TABLE sink_replay IS 'One row is one batch of a replay that a sink has, too; kept for as long as it may be looked for.';

CREATE TABLE sink_series (
    series_id integer NOT NULL,
    kinds smallint NOT NULL,
    sink text NOT NULL REFERENCES sink,
    PRIMARY KEY (sink, series_id)
) WITH (fillfactor = 70);
COMMENT ON TABLE sink_series IS 'One row is one series that a sink has, or is being sent: counted against IOT_INFLUX_MAX_SERIES.';
COMMENT ON COLUMN sink_series.kinds IS 'Fields that it was sent: 1 value, 2 value_int, 4 value_bool, 8 value_text; their sum.';

CREATE TABLE sink_refused (
    refused_at timestamptz NOT NULL DEFAULT now(),
    time timestamptz NOT NULL,
    series_id integer NOT NULL,
    sink text NOT NULL REFERENCES sink,
    tenant_id text NOT NULL,
    reason text NOT NULL,
    detail text NOT NULL,
    PRIMARY KEY (sink, series_id, time)
);
COMMENT ON TABLE sink_refused IS 'One row is one measurement that a sink does not have, because it cannot or will not keep it.';
COMMENT ON COLUMN sink_refused.reason IS
    'server: it refused this one by itself. retention: older than it keeps. series_limit: a series beyond IOT_INFLUX_MAX_SERIES. name: '
    'too long for a tag.';
COMMENT ON COLUMN sink_refused.detail IS 'The server''s words, or what was beyond which bound.';

CREATE TABLE sink_backfill (
    from_time timestamptz NOT NULL,
    to_time timestamptz NOT NULL,
    done_to timestamptz NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT now(),
    sink text NOT NULL REFERENCES sink,
    tenant_id text NOT NULL DEFAULT '',
    PRIMARY KEY (sink, tenant_id, from_time, to_time)
) WITH (fillfactor = 50);
COMMENT ON TABLE sink_backfill IS
    'One row is a backfill of [from_time, to_time) that is not finished: begun again, it goes on at done_to.';
