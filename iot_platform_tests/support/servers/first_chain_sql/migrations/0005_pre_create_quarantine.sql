CREATE TABLE quarantine (
    received_at timestamptz NOT NULL,
    kafka_offset bigint NOT NULL,
    sequence bigint,
    duplicate_of bigint,
    kafka_partition integer NOT NULL,
    connection_id integer,
    packet_id integer,
    flags smallint,
    reason text NOT NULL,
    detail text NOT NULL,
    tenant_id text NOT NULL,
    project_id text NOT NULL,
    topic text NOT NULL,
    topic_bytes bytea,
    payload bytea NOT NULL
);
SELECT create_hypertable('quarantine', by_range('received_at', INTERVAL '7 days'), create_default_indexes => false);
CREATE INDEX quarantine_received_at_idx ON quarantine (received_at DESC);
COMMENT ON TABLE quarantine IS
    'One row is one Kafka record that could not, or would not, be turned into measurements: kept whole, with the reason. Columns shared with message mean the same.';
COMMENT ON COLUMN quarantine.tenant_id IS 'As the topic names it; empty when it names none.';
COMMENT ON COLUMN quarantine.topic IS 'The MQTT topic; bytes that are no UTF-8 text, and U+0000, are escaped as \xNN.';
COMMENT ON COLUMN quarantine.topic_bytes IS 'The topic''s exact bytes where topic had to be escaped; else null.';
