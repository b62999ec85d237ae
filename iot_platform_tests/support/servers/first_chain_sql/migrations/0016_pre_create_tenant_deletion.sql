-- Deleting a tenant: its names go first, in one transaction (the cut); then the rows that carry their ids, in batches.
CREATE TABLE tenant_deletion (
    deletion_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id text NOT NULL,
    requested_by text NOT NULL,
    requested_at timestamptz NOT NULL DEFAULT now(),
    cut_at timestamptz,
    finished_at timestamptz,
    series integer NOT NULL DEFAULT 0,
    sources integer NOT NULL DEFAULT 0,
    projects text[] NOT NULL DEFAULT '{}',
    removed jsonb NOT NULL DEFAULT '{}',
    CHECK (finished_at IS NULL OR cut_at IS NOT NULL)
);
CREATE UNIQUE INDEX tenant_deletion_unfinished_key ON tenant_deletion (tenant_id) WHERE finished_at IS NULL;
CREATE INDEX tenant_deletion_tenant_id_idx ON tenant_deletion (tenant_id);
COMMENT ON TABLE tenant_deletion IS
    'One row is one deletion of a tenant: who asked for it, when, and what it removed. Kept for ever; names the tenant and its projects, nothing else.';
COMMENT ON COLUMN tenant_deletion.cut_at IS 'When its names went: what was committed before is removed, what comes later is the data of a new tenant of that id.';
COMMENT ON COLUMN tenant_deletion.removed IS 'Rows removed so far, by table.';

CREATE TABLE tenant_deletion_series (
    deletion_id integer NOT NULL REFERENCES tenant_deletion,
    series_id integer PRIMARY KEY
);
CREATE INDEX tenant_deletion_series_deletion_id_idx ON tenant_deletion_series (deletion_id, series_id);
COMMENT ON TABLE tenant_deletion_series IS 'One row is one series of a tenant being deleted, whose rows are still being removed.';
CREATE TABLE tenant_deletion_source (
    deletion_id integer NOT NULL REFERENCES tenant_deletion,
    source_id integer PRIMARY KEY
);
COMMENT ON TABLE tenant_deletion_source IS 'One row is one source of a tenant being deleted, whose messages are still being removed.';
CREATE TABLE tenant_deletion_offset (
    deletion_id integer NOT NULL REFERENCES tenant_deletion,
    topic_id text NOT NULL,
    kafka_partition integer NOT NULL,
    next_offset bigint NOT NULL,
    PRIMARY KEY (deletion_id, topic_id, kafka_partition)
);
COMMENT ON TABLE tenant_deletion_offset IS
    'One row is where a Kafka partition was drained to at the cut of a deletion: the tenant''s records below next_offset never come back from Kafka.';

CREATE TABLE catalog_generation (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    generation bigint NOT NULL DEFAULT 0
);
INSERT INTO catalog_generation DEFAULT VALUES;
COMMENT ON TABLE catalog_generation IS
    'One row in all: counts how often series or sources were deleted. Who remembers ids checks it inside the transaction that uses them, under the shared lock catalog.';

CREATE INDEX accounting_1h_tenant_id_idx ON accounting_1h (tenant_id, project_id, hour);
