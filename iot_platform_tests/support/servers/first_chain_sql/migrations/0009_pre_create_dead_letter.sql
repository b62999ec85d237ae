-- What the ingest daemon put into Kafka's dead-letter topic: where each message is, not its bytes (the topic keeps them for ever).
CREATE TABLE dead_letter (
    kafka_offset bigint NOT NULL,
    received_at timestamptz NOT NULL,
    connection_number bigint,
    sequence bigint,
    kafka_partition integer NOT NULL,
    payload_bytes integer NOT NULL,
    part integer NOT NULL DEFAULT 1,
    parts integer NOT NULL DEFAULT 1,
    client_id text,
    topic_id text NOT NULL,
    topic text NOT NULL,
    reason text NOT NULL,
    PRIMARY KEY (topic_id, kafka_partition, kafka_offset)
);
COMMENT ON TABLE dead_letter IS
    'One row is one record of Kafka''s dead-letter topic: a message that Kafka refused as it was, or one part of it. `iot audit` imports them, each once.';
COMMENT ON COLUMN dead_letter.kafka_offset IS 'Offset of the record in the dead-letter topic; offsets below kafka_offset.next_offset of that topic are imported.';
COMMENT ON COLUMN dead_letter.received_at IS 'When the ingest daemon received the message (Kafka''s timestamp for records without our header).';
COMMENT ON COLUMN dead_letter.connection_number IS 'MQTT connection that brought the message; null without our header, as sequence and client_id.';
COMMENT ON COLUMN dead_letter.sequence IS 'Number of the message within its MQTT connection, from 1.';
COMMENT ON COLUMN dead_letter.kafka_partition IS 'Partition of the dead-letter topic.';
COMMENT ON COLUMN dead_letter.payload_bytes IS 'Size of the payload in this record.';
COMMENT ON COLUMN dead_letter.part IS 'Which part of the message this is, from 1. The message is kept whole once all parts of one count are there.';
COMMENT ON COLUMN dead_letter.parts IS 'How many parts the message was cut into.';
COMMENT ON COLUMN dead_letter.client_id IS 'MQTT client id of the ingest daemon.';
COMMENT ON COLUMN dead_letter.topic_id IS 'Kafka''s id of the dead-letter topic.';
COMMENT ON COLUMN dead_letter.topic IS 'The MQTT topic; bytes that are no UTF-8 text, and U+0000, are escaped as \xNN.';
COMMENT ON COLUMN dead_letter.reason IS 'Why Kafka refused the message.';
CREATE INDEX dead_letter_client_id_idx ON dead_letter (client_id, connection_number, sequence);
