-- Raw messages. Columns are ordered by alignment (message_named has the readable order); BRIN costs 0.4 of a btree at insert.
CREATE TABLE message (
    received_at timestamptz NOT NULL,
    kafka_offset bigint NOT NULL,
    sequence bigint,
    duplicate_of bigint,
    source_id integer NOT NULL,
    kafka_partition integer NOT NULL,
    connection_id integer,
    packet_id integer,
    flags smallint,
    time_source smallint NOT NULL,
    payload bytea NOT NULL,
    log_generation integer NOT NULL DEFAULT 0,
    duplicate_of_generation integer
);
SELECT create_hypertable('message', by_range('received_at', INTERVAL '1 day'), create_default_indexes => false);
CREATE INDEX message_received_at_idx ON message
    USING brin (received_at, kafka_offset, connection_id, sequence) WITH (pages_per_range = 64, autosummarize = on);
COMMENT ON TABLE message IS
    'One row is one Kafka record that was decoded: one received MQTT message, bytes unchanged. A Kafka offset is in message or in '
    'quarantine, exactly once.';
COMMENT ON COLUMN message.received_at IS 'When the ingest daemon received it (Kafka''s timestamp for records without our header).';
COMMENT ON COLUMN message.sequence IS 'Number of the message within its MQTT connection, from 1; null without our header.';
COMMENT ON COLUMN message.duplicate_of IS
    'Kafka offset (same partition) of the first copy, when MQTT delivered this message again; such a row has no measurements. Null '
    'otherwise.';
COMMENT ON COLUMN message.flags IS 'bit 0 DUP, bit 1 RETAIN, bits 2-3 QoS, as received; null without our header.';
COMMENT ON COLUMN message.time_source IS '0: its measurements carry the receive time; 1: the payload named a time.';
COMMENT ON COLUMN message.log_generation IS
    'Which log of the Kafka partition the offset is of (kafka_offset.log_generation): partition, generation and offset name a record.';
COMMENT ON COLUMN message.duplicate_of_generation IS 'Generation of the log that duplicate_of is an offset of; null: the row''s own.';
