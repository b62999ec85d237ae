-- The console (iot_platform/api, docs/console.md). Its process logs in as iot_console, which reads these tables and no telemetry; what a
-- tenant has it reads in sessions of that tenant's own login. Roles belong to the whole server: see 0001.
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'iot_console') THEN
        RETURN;
    ELSIF NOT (SELECT rolcreaterole OR rolsuper FROM pg_roles WHERE rolname = current_user) THEN
        RAISE WARNING 'role iot_console does not exist and % may not create roles: continuing without it, there is no console',
            current_user;
        RETURN;
    END IF;
    CREATE ROLE iot_console NOLOGIN;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL;  -- created at this very moment by the migration of another database on this server
END
$$;

CREATE TABLE console_tenant (
    tenant_id text PRIMARY KEY CHECK (octet_length(tenant_id) BETWEEN 1 AND 1024),
    name text NOT NULL DEFAULT '',
    role_name name NOT NULL UNIQUE,
    granted_at timestamptz NOT NULL DEFAULT now(),
    statement_seconds integer NOT NULL CHECK (statement_seconds BETWEEN 1 AND 86400)
);
COMMENT ON TABLE console_tenant IS
    'One row is one tenant that the console may show, and the login by which it reads this tenant''s rows and no others.';
COMMENT ON COLUMN console_tenant.name IS 'What people call the tenant; empty: its id.';
COMMENT ON COLUMN console_tenant.role_name IS
    'Random, as tenant_role.role_name. Its password is stored nowhere: HMAC-SHA-256 of the name by the key in IOT_CONSOLE_KEY_FILE.';

CREATE TABLE console_user (
    user_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE CHECK (name ~ '^[a-z0-9][a-z0-9._@-]{0,127}$'),
    display_name text NOT NULL DEFAULT '',
    password_hash text,
    administrator boolean NOT NULL DEFAULT false,
    disabled boolean NOT NULL DEFAULT false,
    failures integer NOT NULL DEFAULT 0,
    locked_until timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    created_by text NOT NULL DEFAULT '',
    password_set_at timestamptz,
    last_login_at timestamptz
);
COMMENT ON TABLE console_user IS 'One row is one person who may log in to the console.';
COMMENT ON COLUMN console_user.password_hash IS 'Argon2id, in its own notation with salt and parameters; null: no login by password.';
COMMENT ON COLUMN console_user.administrator IS 'Whether this user manages users. It gives no tenant: console_grant does.';
COMMENT ON COLUMN console_user.failures IS 'Wrong passwords since the last right one.';
COMMENT ON COLUMN console_user.locked_until IS 'No password is tried before then.';

CREATE TABLE console_grant (
    user_id integer NOT NULL REFERENCES console_user ON DELETE CASCADE,
    tenant_id text NOT NULL REFERENCES console_tenant ON DELETE CASCADE,
    role text NOT NULL CHECK (role IN ('viewer', 'operator', 'admin')),
    granted_at timestamptz NOT NULL DEFAULT now(),
    granted_by text NOT NULL DEFAULT '',
    PRIMARY KEY (user_id, tenant_id)
);
CREATE INDEX console_grant_tenant_id_idx ON console_grant (tenant_id);
COMMENT ON TABLE console_grant IS
    'One row is one tenant that a user may see. viewer reads; operator also asks for writes (console_action); admin also makes API keys.';

CREATE TABLE console_session (
    token_sha256 bytea PRIMARY KEY,
    user_id integer NOT NULL REFERENCES console_user ON DELETE CASCADE,
    created_at timestamptz NOT NULL DEFAULT now(),
    last_seen_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL
) WITH (fillfactor = 70);
CREATE INDEX console_session_user_id_idx ON console_session (user_id);
COMMENT ON TABLE console_session IS 'One row is one login that has not ended; the cookie''s token is kept as its SHA-256 only.';
COMMENT ON COLUMN console_session.last_seen_at IS 'Of the last request, to a minute; without one for a while the session ends.';

CREATE TABLE api_key (
    key_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id text NOT NULL REFERENCES console_tenant ON DELETE CASCADE,
    name text NOT NULL CHECK (name <> ''),
    key_sha256 bytea NOT NULL UNIQUE,
    created_at timestamptz NOT NULL DEFAULT now(),
    created_by text NOT NULL DEFAULT '',
    expires_at timestamptz,
    last_used_at timestamptz,
    UNIQUE (tenant_id, name)
) WITH (fillfactor = 70);
COMMENT ON TABLE api_key IS 'One row is one key with which a program reads one tenant through the API; its secret is kept as SHA-256 only.';
COMMENT ON COLUMN api_key.expires_at IS 'Null: never.';
COMMENT ON COLUMN api_key.last_used_at IS 'To a minute.';

-- The console writes no telemetry: what a user asks for is done by the platform, with the writer's rights.
CREATE TABLE console_action (
    action_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id text NOT NULL CHECK (tenant_id <> ''),
    kind text NOT NULL CHECK (kind <> ''),
    arguments jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(arguments) = 'object'),
    state text NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'running', 'done', 'failed')),
    done bigint NOT NULL DEFAULT 0,
    total bigint,
    words text NOT NULL DEFAULT '',
    requested_by text NOT NULL,
    requested_at timestamptz NOT NULL DEFAULT now(),
    started_at timestamptz,
    finished_at timestamptz
) WITH (fillfactor = 70);
CREATE INDEX console_action_tenant_id_idx ON console_action (tenant_id, action_id DESC);
CREATE INDEX console_action_unfinished_idx ON console_action (action_id) WHERE state IN ('queued', 'running');
COMMENT ON TABLE console_action IS
    'One row is one write that a user of the console asked for: who, when, what, and what became of it. The log of writes.';
COMMENT ON COLUMN console_action.arguments IS 'Which there are depends on the kind.';
COMMENT ON COLUMN console_action.done IS 'Messages, or rows, dealt with so far; of total, where that is known.';
COMMENT ON COLUMN console_action.words IS 'What became of it, for people; of a failed one, why.';

-- What the console says of the audit, which Dagster's checks evaluate.
CREATE TABLE audit_result (
    proof text PRIMARY KEY,
    audited_at timestamptz NOT NULL,
    since timestamptz,
    differences bigint NOT NULL,
    findings jsonb NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(findings) = 'array')
) WITH (fillfactor = 50);
COMMENT ON TABLE audit_result IS 'One row is what the audit last found by one proof (the name of Dagster''s check).';
COMMENT ON COLUMN audit_result.since IS 'It looked at what was committed since then; null: at everything.';
COMMENT ON COLUMN audit_result.differences IS 'How many there are; 0: all is well.';
COMMENT ON COLUMN audit_result.findings IS 'The first of them: kind, place and text, as `iot audit` says them.';
