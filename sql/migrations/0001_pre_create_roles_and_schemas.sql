-- Group roles of the platform. Roles belong to the whole server, so they may exist already (with LOGIN and a password, made by
-- an administrator or by the local stack); without CREATEROLE they are left out, and repeatable/grants.sql grants to those that exist.
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['iot_writer', 'iot_reader'] LOOP
        IF EXISTS (SELECT FROM pg_roles WHERE rolname = name) THEN
            CONTINUE;
        ELSIF NOT (SELECT rolcreaterole OR rolsuper FROM pg_roles WHERE rolname = current_user) THEN
            RAISE WARNING 'role % does not exist and % may not create roles: continuing without it', name, current_user;
            CONTINUE;
        END IF;
        BEGIN
            EXECUTE format('CREATE ROLE %I NOLOGIN', name);
            EXECUTE format('GRANT %I TO %I', name, current_user);
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL;  -- created at this very moment by the migration of another database on this server
        END;
    END LOOP;
END
$$;

-- Tenants' logins are members of it (repeatable/tenants.sql).
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'iot_tenant') THEN
        RETURN;
    ELSIF NOT (SELECT rolcreaterole OR rolsuper FROM pg_roles WHERE rolname = current_user) THEN
        RAISE WARNING 'role iot_tenant does not exist and % may not create roles: continuing without it, tenants get no logins',
            current_user;
        RETURN;
    END IF;
    CREATE ROLE iot_tenant NOLOGIN;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL;  -- created at this very moment by the migration of another database on this server
END
$$;

CREATE SCHEMA IF NOT EXISTS tenant;
COMMENT ON SCHEMA tenant IS 'What the login of a tenant may read: the rows of this tenant, and nothing else.';

-- Dagster keeps its runs and events here unless IOT_DAGSTER_STORAGE_URL names another place; it creates its own tables.
CREATE SCHEMA IF NOT EXISTS dagster;
COMMENT ON SCHEMA dagster IS 'Dagster''s own tables; nothing of the platform reads them.';
