-- Tenants read their own rows, through the views of schema tenant (repeatable/tenants.sql), with a login of their own (`iot tenant grant`).
CREATE TABLE tenant_role (
    tenant_id text PRIMARY KEY CHECK (octet_length(tenant_id) BETWEEN 1 AND 1024),
    role_name name NOT NULL UNIQUE,
    granted_at timestamptz NOT NULL DEFAULT now(),
    password_set_at timestamptz NOT NULL DEFAULT now(),
    statement_seconds integer NOT NULL DEFAULT 30 CHECK (statement_seconds BETWEEN 1 AND 86400)
);
COMMENT ON TABLE tenant_role IS 'One row is one tenant''s login: who logs in as role_name sees the rows of tenant_id.';
COMMENT ON COLUMN tenant_role.role_name IS
    'Random, because every login of a server can list its roles: a tenant must not learn from it who else there is.';
-- A login may ALTER ROLE itself: what statements and transactions may take (end_tenant_sessions) is kept where it can't change it.
COMMENT ON COLUMN tenant_role.statement_seconds IS
    'What a statement may take. A transaction that is a minute older is ended with its session, whatever the login SET.';

-- Deleting a tenant: the cut draws a line; the names behind it, and the rows that carry their ids, go in batches after it
-- (repeatable/tenant_deletion.sql).
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
    last_series_id integer NOT NULL DEFAULT 0,
    last_source_id integer NOT NULL DEFAULT 0,
    names_gone_at timestamptz,
    CHECK (finished_at IS NULL OR cut_at IS NOT NULL)
);
CREATE UNIQUE INDEX tenant_deletion_unfinished_key ON tenant_deletion (tenant_id) WHERE finished_at IS NULL;
CREATE INDEX tenant_deletion_tenant_id_idx ON tenant_deletion (tenant_id);
COMMENT ON TABLE tenant_deletion IS
    'One row is one deletion of a tenant: who asked for it, when, and what it removed. Kept for ever; names the tenant and its projects, '
    'nothing else.';
COMMENT ON COLUMN tenant_deletion.cut_at IS
    'When the line was drawn: what was committed before is removed, what comes later is the data of a new tenant of that id.';
COMMENT ON COLUMN tenant_deletion.last_series_id IS
    'The newest series at the cut: the tenant''s series up to it are removed, later ones are of a new tenant. As last_source_id.';
COMMENT ON COLUMN tenant_deletion.names_gone_at IS 'When the last of these series and sources was deleted; null before.';
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
    log_generation integer NOT NULL DEFAULT 0,
    PRIMARY KEY (deletion_id, topic_id, kafka_partition)
);
COMMENT ON TABLE tenant_deletion_offset IS
    'One row is where a Kafka partition was drained to at the cut of a deletion: the tenant''s records of earlier logs, and of this one '
    'below next_offset, never come back.';
