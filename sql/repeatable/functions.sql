CREATE OR REPLACE FUNCTION timescale_edition() RETURNS text
LANGUAGE sql STABLE AS $$
    SELECT CASE current_setting('timescaledb.license') WHEN 'timescale' THEN 'community' ELSE 'apache' END
$$;
COMMENT ON FUNCTION timescale_edition() IS 'community (which has compression) or apache.';

CREATE OR REPLACE FUNCTION record_place(log_generation integer, kafka_offset bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT log_generation::bigint << 44 | kafka_offset
$$;
COMMENT ON FUNCTION record_place(integer, bigint) IS
    'Where a record is in its Kafka partition, as one number: of a later log (kafka_offset.log_generation) a higher one; of the first '
    'log the offset.';

-- A boolean has a number and a text; a text or an array only the text.
CREATE OR REPLACE FUNCTION value_shown(value double precision, value_int bigint, value_text text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN value IS NULL THEN to_json(left(value_text, 200))::text ELSE coalesce(value_text, value_int::text, value::text) END
$$;
COMMENT ON FUNCTION value_shown(double precision, bigint, text) IS
    'A measurement''s value for people: at most 200 characters of a text, in quotes, so that "1" is not taken for 1.';
