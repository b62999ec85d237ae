-- What the compact ids of message and measurement stand for. `identity` is the SHA-256 of the names (each prefixed with its length):
-- a topic may be 65,535 bytes long, more than an index entry can hold.
CREATE TABLE project (
    tenant_id text NOT NULL,
    project_id text NOT NULL,
    first_seen_at timestamptz NOT NULL DEFAULT now(),
    series_count integer NOT NULL DEFAULT 0,
    source_count integer NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant_id, project_id)
) WITH (fillfactor = 70);
COMMENT ON TABLE project IS 'One row is one project of one tenant, created by its first message that was not quarantined.';
COMMENT ON COLUMN project.series_count IS 'Rows of series for this project; the drain keeps it exact and bounds it by IOT_MAX_SERIES_PER_PROJECT.';
COMMENT ON COLUMN project.source_count IS 'Rows of source for this project; the same bound holds.';

CREATE TABLE source (
    source_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    identity bytea NOT NULL UNIQUE,
    topic text NOT NULL,
    tenant_id text NOT NULL,
    project_id text NOT NULL,
    device_id text NOT NULL,
    first_seen_at timestamptz NOT NULL DEFAULT now(),
    FOREIGN KEY (tenant_id, project_id) REFERENCES project
);
COMMENT ON TABLE source IS 'One row is one origin of messages: an MQTT topic and the device its messages name (empty when they name none).';
CREATE INDEX source_tenant_id_project_id_idx ON source (tenant_id, project_id);
CREATE INDEX source_topic_idx ON source USING hash (topic);
CREATE INDEX source_device_id_idx ON source USING hash (device_id);

CREATE TABLE series (
    series_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    identity bytea NOT NULL UNIQUE,
    tenant_id text NOT NULL,
    project_id text NOT NULL,
    device_id text NOT NULL,
    metric text NOT NULL,
    unit text,
    first_seen_at timestamptz NOT NULL DEFAULT now(),
    FOREIGN KEY (tenant_id, project_id) REFERENCES project
);
COMMENT ON TABLE series IS 'One row is one metric of one device of one project of one tenant.';
CREATE INDEX series_tenant_id_project_id_metric_idx ON series (tenant_id, project_id, metric);
CREATE INDEX series_device_id_idx ON series USING hash (device_id);

CREATE TABLE mqtt_connection (
    connection_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    client_id text NOT NULL,
    connection_number bigint NOT NULL,
    first_seen_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (client_id, connection_number)
);
COMMENT ON TABLE mqtt_connection IS 'One row is one MQTT connection of one ingest daemon that brought at least one message.';
COMMENT ON COLUMN mqtt_connection.connection_number IS 'Strictly increasing per client id; the ingest daemon persists it.';

CREATE TABLE mqtt_connection_partition (
    connection_id integer NOT NULL REFERENCES mqtt_connection,
    kafka_partition integer NOT NULL,
    first_received_at timestamptz NOT NULL,
    last_received_at timestamptz NOT NULL,
    last_sequence bigint NOT NULL,
    PRIMARY KEY (connection_id, kafka_partition)
) WITH (fillfactor = 50);
COMMENT ON TABLE mqtt_connection_partition IS
    'One row is what one MQTT connection brought into one Kafka partition; bounds the search for the first copy of a redelivered message.';
