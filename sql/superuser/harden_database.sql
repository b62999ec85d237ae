-- In each database of the platform, by a superuser, again after ALTER EXTENSION timescaledb UPDATE: takes from PUBLIC what PostgreSQL and
-- TimescaleDB give to everybody and only a superuser can take. Without it a tenant's login could drop chunks (TimescaleDB before its pull
-- request 10386 checks no rights there), hold the advisory locks of a drain (it would stand still), start background jobs, or fill the disk
-- with large objects or WAL. Of TimescaleDB's functions everything goes that could change something, whatever a release calls it; gapfill's
-- three, which are volatile by name only, stay. After pg_upgrade from PostgreSQL 15 or older it also gives the owner of the database back
-- what it made: since 16 only who has ADMIN OPTION on a role may change it, as whoever makes one there gets.
DO $$
DECLARE
    routine regprocedure;
    name text;
    owner regrole := (SELECT datdba FROM pg_database WHERE datname = current_database());
BEGIN
    FOR name IN SELECT rolname FROM pg_roles r
        WHERE current_setting('server_version_num')::integer >= 160000 AND (rolname = 'iot_tenant' OR EXISTS (
            SELECT FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid
            WHERE m.member = r.oid AND g.rolname = 'iot_tenant' AND r.rolname ~ '^iot_tenant_'))
          AND NOT pg_has_role(owner, oid, 'MEMBER WITH ADMIN OPTION')
    LOOP
        EXECUTE format('GRANT %I TO %s WITH ADMIN OPTION', name, owner);
    END LOOP;
    -- No statement of a tenant sorts the disk full; only a superuser can set and raise this limit. The platform's own roles have none.
    EXECUTE format('ALTER DATABASE %I SET temp_file_limit = ''2GB''', current_database());
    FOR name IN SELECT rolname FROM pg_roles WHERE rolname IN ('iot_migrator', 'iot_writer', 'iot_reader') LOOP
        EXECUTE format('ALTER ROLE %I IN DATABASE %I SET temp_file_limit = -1', name, current_database());
    END LOOP;
    FOR routine IN
        SELECT oid FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace AND (proname ~ '^pg_(try_)?advisory_(xact_)?(un)?lock'
            OR proname IN ('lo_creat', 'lo_create', 'lo_from_bytea', 'lo_put', 'lowrite', 'pg_logical_emit_message'))
        UNION ALL
        SELECT p.oid FROM pg_proc p
        JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
        JOIN pg_extension e ON e.oid = d.refobjid AND d.refclassid = 'pg_extension'::regclass
        WHERE e.extname = 'timescaledb' AND p.provolatile = 'v' AND p.prokind IN ('f', 'p') AND p.prorettype <> 'trigger'::regtype
          AND p.proname NOT IN ('time_bucket_gapfill', 'locf', 'interpolate')
    LOOP
        EXECUTE format('REVOKE EXECUTE ON ROUTINE %s FROM PUBLIC', routine);
        EXECUTE format('GRANT EXECUTE ON ROUTINE %s TO pg_database_owner', routine);
        IF routine::text ~ '^_timescaledb' THEN
            CONTINUE;
        END IF;
        FOR name IN SELECT rolname FROM pg_roles WHERE rolname = 'iot_writer' OR (rolname = 'iot_reader' AND routine::text !~ '^(pg|lo)') LOOP
            EXECUTE format('GRANT EXECUTE ON ROUTINE %s TO %I', routine, name);
        END LOOP;
    END LOOP;
END
$$;
