-- Optional, in each database of the platform, by a superuser: takes from PUBLIC what PostgreSQL gives to everybody and only its superuser can take.
-- Without it a tenant's login could hold the advisory locks of a drain (it would stand still), or fill the disk with large objects.
DO $$
DECLARE
    routine regprocedure;
BEGIN
    FOR routine IN
        SELECT oid FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace
          AND (proname ~ '^pg_(try_)?advisory_(xact_)?(un)?lock' OR proname IN ('lo_creat', 'lo_create', 'lo_from_bytea', 'lo_put', 'lowrite'))
    LOOP
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', routine);
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO pg_database_owner', routine);
        IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'iot_writer') THEN
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO iot_writer', routine);
        END IF;
    END LOOP;
END
$$;
