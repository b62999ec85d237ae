-- In each database of the platform, by a superuser, on the old server right before pg_upgrade: gives PostgreSQL's own functions back to
-- everybody, as harden_database.sql found them. pg_upgrade writes a right down by the function's signature, and PostgreSQL 17 gave one of
-- them another: the new server does not know it, and pg_upgrade ends in the middle, which --check does not see. On the new server, and on
-- the old one if it serves on, run harden_database.sql again before tenants are let in.
DO $$
DECLARE
    routine regprocedure;
    name text;
BEGIN
    FOR routine, name IN
        SELECT p.oid, r.rolname FROM pg_proc p CROSS JOIN LATERAL aclexplode(p.proacl) a JOIN pg_roles r ON r.oid = a.grantee
        WHERE p.pronamespace = 'pg_catalog'::regnamespace AND a.grantee <> p.proowner
          AND EXISTS (SELECT FROM aclexplode(p.proacl) o WHERE o.grantee = 'pg_database_owner'::regrole)
    LOOP
        EXECUTE format('GRANT EXECUTE ON ROUTINE %s TO PUBLIC', routine);
        EXECUTE format('REVOKE EXECUTE ON ROUTINE %s FROM %I', routine, name);
    END LOOP;
END
$$;
