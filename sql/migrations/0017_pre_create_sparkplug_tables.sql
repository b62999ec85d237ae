-- Sparkplug B: an edge node says once, in its births, what its metrics are called and of which type they are; later messages have an alias
-- only. Births are kept in the transaction of the rows that they came with, so that every later drain and replay finds those that came
-- before a message. Before is an order within one Kafka partition; the ingest daemon keeps an edge node's messages in one.
CREATE TABLE sparkplug_birth (
    identity bytea NOT NULL,
    kafka_partition integer NOT NULL,
    place bigint NOT NULL,
    received_at timestamptz NOT NULL,
    device text NOT NULL,
    bd_seq bigint,
    sha256 bytea NOT NULL,
    tenant_id text NOT NULL,
    project_id text NOT NULL,
    metrics jsonb NOT NULL,
    PRIMARY KEY (identity, kafka_partition, place)
);
COMMENT ON TABLE sparkplug_birth IS
    'One row is one birth of a Sparkplug B edge node (NBIRTH) or of one of its devices (DBIRTH). An NBIRTH ends what was defined before. '
    'Those that ended more than 30 days ago are removed when the edge node is born again.';
COMMENT ON COLUMN sparkplug_birth.identity IS 'SHA-256 of the edge node''s name; see sparkplug_node.';
COMMENT ON COLUMN sparkplug_birth.place IS 'Where the birth is in its Kafka partition: record_place(log_generation, kafka_offset).';
COMMENT ON COLUMN sparkplug_birth.device IS 'Device of a DBIRTH; empty for an NBIRTH.';
COMMENT ON COLUMN sparkplug_birth.bd_seq IS 'bdSeq of an NBIRTH: the number that its death will have.';
COMMENT ON COLUMN sparkplug_birth.sha256 IS 'Of the payload: the same birth delivered again is no new one.';
COMMENT ON COLUMN sparkplug_birth.metrics IS 'List of [name, datatype, alias], the alias null where the birth gives none.';

CREATE TABLE sparkplug_node (
    identity bytea NOT NULL,
    kafka_partition integer NOT NULL,
    last_place bigint NOT NULL,
    last_received_at timestamptz NOT NULL,
    born_at timestamptz,
    died_at timestamptz,
    gap_at timestamptz,
    messages bigint NOT NULL,
    births bigint NOT NULL,
    deaths bigint NOT NULL,
    seq_gaps bigint NOT NULL,
    seq_missing bigint NOT NULL,
    bd_seq bigint,
    seq smallint,
    node text NOT NULL,
    tenant_id text NOT NULL,
    project_id text NOT NULL,
    PRIMARY KEY (identity, kafka_partition)
) WITH (fillfactor = 50);
COMMENT ON TABLE sparkplug_node IS
    'One row is one Sparkplug B edge node as seen in one Kafka partition (normally there is one): when it was born and died, and how '
    'often its sequence number jumped. A jump means that messages did not reach the platform, or came in another order; it is no loss '
    'of what did.';
COMMENT ON COLUMN sparkplug_node.identity IS 'SHA-256 of node, as name_key in the drain''s catalog makes it.';
COMMENT ON COLUMN sparkplug_node.node IS 'The edge node''s topic without message type and device, such as spBv1.0/group/node.';
COMMENT ON COLUMN sparkplug_node.last_place IS
    'Where its last message is in the Kafka partition: record_place(log_generation, kafka_offset).';
COMMENT ON COLUMN sparkplug_node.born_at IS 'When its last NBIRTH was received.';
COMMENT ON COLUMN sparkplug_node.died_at IS 'When the NDEATH of this birth was received; null: it lives, as far as is known.';
COMMENT ON COLUMN sparkplug_node.gap_at IS 'When the last message after a gap of the sequence number was received.';
COMMENT ON COLUMN sparkplug_node.seq_gaps IS 'How often the sequence number (0 to 255) left some out.';
COMMENT ON COLUMN sparkplug_node.seq_missing IS 'How many sequence numbers were left out in all, at least: 256 in a row do not show.';
COMMENT ON COLUMN sparkplug_node.bd_seq IS 'bdSeq of the last NBIRTH.';
COMMENT ON COLUMN sparkplug_node.seq IS 'Last sequence number; null: none was seen.';
