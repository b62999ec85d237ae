CREATE TABLE measurement (
    time timestamptz NOT NULL,
    series_id integer NOT NULL,
    value double precision,
    value_int bigint,
    value_text text
);
SELECT create_hypertable('measurement', by_range('time', INTERVAL '1 day'), create_default_indexes => false);
CREATE UNIQUE INDEX measurement_series_id_time_key ON measurement (series_id, time);
COMMENT ON TABLE measurement IS 'One row is one value of one series at one time; the first that arrived wins.';
COMMENT ON COLUMN measurement.value IS 'The number, or 1 and 0 for booleans; null for texts.';
COMMENT ON COLUMN measurement.value_int IS 'The exact integer where a double cannot hold it; else null.';
COMMENT ON COLUMN measurement.value_text IS
    'Strings, true and false, compact JSON of arrays, digits of integers beyond 64 bits; else null.';

CREATE TABLE series_latest (
    time timestamptz NOT NULL,
    series_id integer PRIMARY KEY,
    value double precision,
    value_int bigint,
    value_text text
) WITH (fillfactor = 50);
COMMENT ON TABLE series_latest IS
    'One row is the measurement with the greatest time of one series, written in the same transaction as the measurement.';
