-- Tenants read their own rows, through the views of schema tenant (repeatable/tenants.sql), with a login of their own (`iot tenant grant`).
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'iot_tenant') THEN
        RETURN;
    ELSIF NOT (SELECT rolcreaterole OR rolsuper FROM pg_roles WHERE rolname = current_user) THEN
        RAISE WARNING 'role iot_tenant does not exist and % may not create roles: continuing without it, tenants get no logins', current_user;
        RETURN;
    END IF;
    CREATE ROLE iot_tenant NOLOGIN;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL;  -- created at this very moment by the migration of another database on this server
END
$$;

CREATE SCHEMA IF NOT EXISTS tenant;
COMMENT ON SCHEMA tenant IS 'What the login of a tenant may read: the rows of this tenant, and nothing else.';

CREATE TABLE tenant_role (
    tenant_id text PRIMARY KEY CHECK (octet_length(tenant_id) BETWEEN 1 AND 1024),
    role_name name NOT NULL UNIQUE,
    granted_at timestamptz NOT NULL DEFAULT now(),
    password_set_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE tenant_role IS 'One row is one tenant''s login: who logs in as role_name sees the rows of tenant_id.';
COMMENT ON COLUMN tenant_role.role_name IS 'Random, because every login of a server can list its roles: a tenant must not learn from it who else there is.';

-- The tenants' views show names as expressions (name || ''), which have indexes of their own, without statistics: a search for a name can't touch
-- another tenant's row (EXPLAIN ANALYZE tells how many rows a filter removed), nor can an estimate tell how common it is among all tenants.
CREATE INDEX series_tenant_names_idx ON series (tenant_id, (project_id || ''), (device_id || ''));
CREATE INDEX series_tenant_device_idx ON series (tenant_id, (device_id || ''), (metric || ''));
ALTER INDEX series_tenant_names_idx ALTER COLUMN 2 SET STATISTICS 0;
ALTER INDEX series_tenant_names_idx ALTER COLUMN 3 SET STATISTICS 0;
ALTER INDEX series_tenant_device_idx ALTER COLUMN 2 SET STATISTICS 0;
ALTER INDEX series_tenant_device_idx ALTER COLUMN 3 SET STATISTICS 0;
