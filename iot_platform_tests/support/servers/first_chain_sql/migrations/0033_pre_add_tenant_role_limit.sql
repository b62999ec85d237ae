-- A login may ALTER ROLE itself: what statements and transactions may take (end_tenant_sessions) is kept where it can't change it.
ALTER TABLE tenant_role ADD COLUMN statement_seconds integer NOT NULL DEFAULT 30 CHECK (statement_seconds BETWEEN 1 AND 86400);
COMMENT ON COLUMN tenant_role.statement_seconds IS 'What a statement may take. A transaction that is a minute older is ended with its session, whatever the login SET.';
