-- What the ingest daemons say of themselves (GET /accounting): the other side of the audit. Stored only once the drain has passed what Kafka
-- held when the report was made, so that everything a report promises must be found.
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
COMMENT ON TABLE mqtt_connection_report IS 'One row is the last that an ingest daemon reported of one of its MQTT connections; counters never go back.';
COMMENT ON COLUMN mqtt_connection_report.in_kafka IS
    'Sequences 1 to in_kafka are in Kafka''s message or dead-letter topic: each must be found in message, quarantine or dead_letter.';
COMMENT ON COLUMN mqtt_connection_report.settled IS 'Sequences 1 to settled are in Kafka or in the daemon''s spool: they were, or may have been, acknowledged.';
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
    'One row is the last report of one ingest daemon, counted since its state directory was made: received = delivered + spooled + dead_lettered + in_flight + given_up.';
COMMENT ON COLUMN ingest_report.reported_at IS 'When the daemon reported, by its clock.';
COMMENT ON COLUMN ingest_report.fetched_at IS 'When the report was asked for, by the database''s clock; an earlier one never replaces a later one.';
COMMENT ON COLUMN ingest_report.received IS 'Messages taken from the MQTT broker; one that was in flight when a daemon died and is delivered again counts once.';
COMMENT ON COLUMN ingest_report.delivered IS 'Messages that Kafka''s message topic has.';
COMMENT ON COLUMN ingest_report.dead_lettered IS 'Messages that Kafka''s dead-letter topic has.';
COMMENT ON COLUMN ingest_report.spooled IS 'Messages in the spool: acknowledged, on disk, on their way to Kafka.';
COMMENT ON COLUMN ingest_report.in_flight IS 'Messages received and not acknowledged, those included that a daemon held when it died and the broker will send again.';
COMMENT ON COLUMN ingest_report.given_up IS 'Messages in flight when a daemon died whose session the broker then lost: never acknowledged, and not sent again.';
COMMENT ON COLUMN ingest_report.missing IS 'Spool entries that vanished: acknowledged and lost. Must be 0.';
COMMENT ON COLUMN ingest_report.sessions_lost IS 'How often the broker had forgotten the daemon''s session, and with it what it held for the daemon.';
