-- What the release before asks for and this one does not: `iot migrate` runs before the programs are exchanged, and they may go back. The
-- test integration/test_previous_release.py runs that release on this schema. A release later a post file drops what stands here.

-- Until migration 0018 rollups of the Community edition were continuous aggregates.
CREATE OR REPLACE FUNCTION rollup_storage() RETURNS text LANGUAGE sql STABLE AS $$ SELECT 'tables' $$;
COMMENT ON FUNCTION rollup_storage() IS 'For the release before: how rollups are kept.';

CREATE OR REPLACE FUNCTION retention_deletable(table_name text) RETURNS boolean LANGUAGE sql STABLE AS $$ SELECT true $$;
COMMENT ON FUNCTION retention_deletable(text) IS 'For the release before: whether single rows of a table can be deleted.';
