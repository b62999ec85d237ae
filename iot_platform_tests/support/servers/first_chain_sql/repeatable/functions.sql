CREATE OR REPLACE FUNCTION timescale_edition() RETURNS text
LANGUAGE sql STABLE AS $$
    SELECT CASE current_setting('timescaledb.license') WHEN 'timescale' THEN 'community' ELSE 'apache' END
$$;
COMMENT ON FUNCTION timescale_edition() IS 'community (compression, continuous aggregates, policies) or apache (none of these).';

CREATE OR REPLACE FUNCTION record_place(log_generation integer, kafka_offset bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT log_generation::bigint << 44 | kafka_offset
$$;
COMMENT ON FUNCTION record_place(integer, bigint) IS
    'Where a record is in its Kafka partition, as one number: of a later log (kafka_offset.log_generation) a higher one; of the first log the offset.';
