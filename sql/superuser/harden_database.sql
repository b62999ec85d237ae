-- In each database of the platform, by a superuser, again after ALTER EXTENSION timescaledb UPDATE: takes from PUBLIC what PostgreSQL and
-- TimescaleDB give to everybody and only a superuser can take. Without it a tenant's login could drop chunks (TimescaleDB before its pull
-- request 10386 checks no rights there), hold the advisory locks of a drain (it would stand still), or fill the disk with large objects or
-- WAL.
DO $$
DECLARE
    routine regprocedure;
    name text;
BEGIN
    -- No statement of a tenant sorts the disk full; only a superuser can set and raise this limit. The platform's own roles have none.
    EXECUTE format('ALTER DATABASE %I SET temp_file_limit = ''2GB''', current_database());
    FOR name IN SELECT rolname FROM pg_roles WHERE rolname IN ('iot_migrator', 'iot_writer', 'iot_reader') LOOP
        EXECUTE format('ALTER ROLE %I IN DATABASE %I SET temp_file_limit = -1', name, current_database());
    END LOOP;
    FOR routine IN
        SELECT oid FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace AND (proname ~ '^pg_(try_)?advisory_(xact_)?(un)?lock'
            OR proname IN ('lo_creat', 'lo_create', 'lo_from_bytea', 'lo_put', 'lowrite', 'pg_logical_emit_message'))
        UNION ALL  -- of TimescaleDB's internal functions all that could change something
        SELECT p.oid FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
        WHERE n.nspname IN ('_timescaledb_functions', '_timescaledb_internal') AND p.provolatile = 'v'
            AND p.prorettype <> 'trigger'::regtype
          AND p.proname ~ '^(drop|freeze|unfreeze|attach|remove|create|chunk_index|chunk_constraint|constraint_clone|hypertable_osm'
              '|lock_osm|recompress|alter|cagg_migrate|policy|repair)'
    LOOP
        EXECUTE format('REVOKE EXECUTE ON ROUTINE %s FROM PUBLIC', routine);
        EXECUTE format('GRANT EXECUTE ON ROUTINE %s TO pg_database_owner', routine);
        IF routine::text ~ '^_timescaledb' THEN
            CONTINUE;
        END IF;
        IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'iot_writer') THEN
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO iot_writer', routine);
        END IF;
    END LOOP;
END
$$;
