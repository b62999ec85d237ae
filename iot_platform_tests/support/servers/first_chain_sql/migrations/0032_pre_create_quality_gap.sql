-- Gaps wait: what is missing may only be late.
CREATE TABLE quality_gap (
    noticed_at timestamptz NOT NULL,
    time_before timestamptz NOT NULL,
    time timestamptz NOT NULL,
    kafka_offset bigint,
    value_before double precision NOT NULL,
    value double precision NOT NULL,
    series_id integer NOT NULL,
    kafka_partition integer,
    PRIMARY KEY (series_id, time)
);
COMMENT ON TABLE quality_gap IS 'One row is one gap in a sequence that sequence_gap noticed and will judge once its window_seconds are over.';
COMMENT ON COLUMN quality_gap.noticed_at IS 'Horizon of the evaluation that noticed it.';

UPDATE quality_rule SET description = 'More than threshold numbers are missing, window_seconds after a gap was noticed, in a series that counts its messages: one of parameters.metrics whose steps are mostly 1.'
WHERE rule = 'sequence_gap' AND tenant_id = '' AND metric = '';
UPDATE quality_rule SET parameters = '{"resting": [0]}' || parameters,
    description = 'A number that used to change stays exactly the same for at least threshold measurements and window_seconds. What had fewer than 5 values before (flags, coarse numbers), texts, values of parameters.resting and counters (what only rose, or began anew) are not judged.'
WHERE rule = 'stuck_value' AND tenant_id = '' AND metric = '';
