CREATE OR REPLACE FUNCTION timescale_edition() RETURNS text
LANGUAGE sql STABLE AS $$
    SELECT CASE current_setting('timescaledb.license') WHEN 'timescale' THEN 'community' ELSE 'apache' END
$$;
COMMENT ON FUNCTION timescale_edition() IS 'community (compression, continuous aggregates, policies) or apache (none of these).';
