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
    log_generation integer NOT NULL DEFAULT 0,
    PRIMARY KEY (topic_id, kafka_partition, log_generation, kafka_offset)
);
COMMENT ON TABLE dead_letter IS
    'One row is one record of Kafka''s dead-letter topic: a message that Kafka refused as it was, or one part of it. `iot audit` imports '
    'them, each once.';
COMMENT ON COLUMN dead_letter.kafka_offset IS
    'Offset of the record in the dead-letter topic; offsets below kafka_offset.next_offset of that topic are imported.';
COMMENT ON COLUMN dead_letter.received_at IS
    'When the ingest daemon received the message (Kafka''s timestamp for records without our header).';
COMMENT ON COLUMN dead_letter.connection_number IS
    'MQTT connection that brought the message; null without our header, as sequence and client_id.';
COMMENT ON COLUMN dead_letter.sequence IS 'Number of the message within its MQTT connection, from 1.';
COMMENT ON COLUMN dead_letter.kafka_partition IS 'Partition of the dead-letter topic.';
COMMENT ON COLUMN dead_letter.payload_bytes IS 'Size of the payload in this record.';
COMMENT ON COLUMN dead_letter.part IS
    'Which part of the message this is, from 1. The message is kept whole once all parts of one count are there.';
COMMENT ON COLUMN dead_letter.parts IS 'How many parts the message was cut into.';
COMMENT ON COLUMN dead_letter.client_id IS 'MQTT client id of the ingest daemon.';
COMMENT ON COLUMN dead_letter.topic_id IS 'Kafka''s id of the dead-letter topic.';
COMMENT ON COLUMN dead_letter.topic IS 'The MQTT topic; bytes that are no UTF-8 text, and U+0000, are escaped as \xNN.';
COMMENT ON COLUMN dead_letter.reason IS 'Why Kafka refused the message.';
CREATE INDEX dead_letter_client_id_idx ON dead_letter (client_id, connection_number, sequence);

-- What the ingest daemons say of themselves (GET /accounting): the other side of the audit. Stored only once the drain has passed what
-- Kafka held when the report was made, so that everything a report promises must be found.
CREATE TABLE mqtt_connection_report (
    connection_number bigint NOT NULL,
    in_kafka bigint NOT NULL,
    settled bigint NOT NULL,
    received bigint NOT NULL,
    opened_at timestamptz NOT NULL,
    reported_at timestamptz NOT NULL,
    moved_at timestamptz NOT NULL DEFAULT now(),
    open boolean NOT NULL,
    client_id text NOT NULL,
    PRIMARY KEY (client_id, connection_number),
    CHECK (in_kafka <= settled AND settled <= received)
) WITH (fillfactor = 50);
COMMENT ON TABLE mqtt_connection_report IS
    'One row is the last that an ingest daemon reported of one of its MQTT connections; counters never go back.';
COMMENT ON COLUMN mqtt_connection_report.in_kafka IS
    'Sequences 1 to in_kafka are in Kafka''s message or dead-letter topic: each must be found in message, quarantine or dead_letter.';
COMMENT ON COLUMN mqtt_connection_report.settled IS
    'Sequences 1 to settled are in Kafka or in the daemon''s spool: they were, or may have been, acknowledged.';
COMMENT ON COLUMN mqtt_connection_report.received IS 'Last sequence that the connection brought.';
COMMENT ON COLUMN mqtt_connection_report.opened_at IS 'When the connection was opened, by the daemon''s clock.';
COMMENT ON COLUMN mqtt_connection_report.reported_at IS 'When the daemon reported, by its clock.';
COMMENT ON COLUMN mqtt_connection_report.moved_at IS 'When in_kafka last grew, by the database''s clock.';
COMMENT ON COLUMN mqtt_connection_report.open IS 'Whether the connection still brought messages.';
CREATE INDEX mqtt_connection_report_moved_at_idx ON mqtt_connection_report (moved_at);

CREATE TABLE ingest_report (
    client_id text PRIMARY KEY,
    reported_at timestamptz NOT NULL,
    fetched_at timestamptz NOT NULL,
    received bigint NOT NULL,
    delivered bigint NOT NULL,
    dead_lettered bigint NOT NULL,
    spooled bigint NOT NULL,
    in_flight bigint NOT NULL,
    given_up bigint NOT NULL,
    missing bigint NOT NULL,
    sessions_lost bigint NOT NULL
) WITH (fillfactor = 50);
COMMENT ON TABLE ingest_report IS
    'One row is the last report of one ingest daemon, counted since its state directory was made: received = delivered + spooled + '
    'dead_lettered + in_flight + given_up.';
COMMENT ON COLUMN ingest_report.reported_at IS 'When the daemon reported, by its clock.';
COMMENT ON COLUMN ingest_report.fetched_at IS
    'When the report was asked for, by the database''s clock; an earlier one never replaces a later one.';
COMMENT ON COLUMN ingest_report.received IS
    'Messages taken from the MQTT broker; one that was in flight when a daemon died and is delivered again counts once.';
COMMENT ON COLUMN ingest_report.delivered IS 'Messages that Kafka''s message topic has.';
COMMENT ON COLUMN ingest_report.dead_lettered IS 'Messages that Kafka''s dead-letter topic has.';
COMMENT ON COLUMN ingest_report.spooled IS 'Messages in the spool: acknowledged, on disk, on their way to Kafka.';
COMMENT ON COLUMN ingest_report.in_flight IS
    'Messages received and not acknowledged, those included that a daemon held when it died and the broker will send again.';
COMMENT ON COLUMN ingest_report.given_up IS
    'Messages in flight when a daemon died whose session the broker then lost: never acknowledged, and not sent again.';
COMMENT ON COLUMN ingest_report.missing IS 'Spool entries that vanished: acknowledged and lost. Must be 0.';
COMMENT ON COLUMN ingest_report.sessions_lost IS
    'How often the broker had forgotten the daemon''s session, and with it what it held for the daemon.';
