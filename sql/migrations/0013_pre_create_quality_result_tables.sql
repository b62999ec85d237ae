-- A hypertable only so that old results can be dropped by chunk.
CREATE TABLE quality_result (
    evaluated_at timestamptz NOT NULL,
    incident_id bigint NOT NULL,
    window_from timestamptz,
    window_to timestamptz,
    kafka_offset bigint,
    value double precision,
    threshold double precision,
    kafka_partition integer,
    rule text NOT NULL,
    tenant_id text NOT NULL,
    project_id text NOT NULL,
    device_id text NOT NULL,
    metric text NOT NULL,
    status text NOT NULL CHECK (status IN ('OK', 'WARN', 'ERROR')),
    message text NOT NULL,
    example jsonb
);
SELECT create_hypertable('quality_result', by_range('evaluated_at', INTERVAL '7 days'), create_default_indexes => false);
CREATE INDEX quality_result_evaluated_at_idx ON quality_result (evaluated_at DESC);
CREATE INDEX quality_result_tenant_id_project_id_idx ON quality_result (tenant_id, project_id, evaluated_at DESC);
COMMENT ON TABLE quality_result IS
    'One row is one finding of one quality rule: when something began to fail, each hour while it fails, and (status OK) when it was '
    'good again.';
COMMENT ON COLUMN quality_result.evaluated_at IS 'The horizon of the evaluation: what was received until then was judged.';
COMMENT ON COLUMN quality_result.device_id IS
    'Empty where the finding is about more than one device (or a device without a name). As tenant_id, project_id and metric.';
COMMENT ON COLUMN quality_result.metric IS 'The metric; the reason, for quarantine_rate; the Kafka partition, for ledger_continuous.';
COMMENT ON COLUMN quality_result.example IS 'A row that shows the problem, columns by name.';
COMMENT ON COLUMN quality_result.kafka_offset IS 'A Kafka record that shows the problem, with kafka_partition; null where none does.';

CREATE TABLE quality_incident (
    incident_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    opened_at timestamptz NOT NULL,
    last_seen_at timestamptz NOT NULL,
    closed_at timestamptz,
    told_at timestamptz NOT NULL,
    kafka_offset bigint,
    value double precision,
    threshold double precision,
    flaps integer NOT NULL DEFAULT 0,
    evaluations integer NOT NULL DEFAULT 1,
    clear_seconds integer NOT NULL,
    hold_seconds integer NOT NULL,
    kafka_partition integer,
    rule text NOT NULL,
    tenant_id text NOT NULL,
    project_id text NOT NULL,
    device_id text NOT NULL,
    metric text NOT NULL,
    severity text NOT NULL CHECK (severity IN ('WARN', 'ERROR')),
    message text NOT NULL,
    example jsonb
) WITH (fillfactor = 70);
CREATE UNIQUE INDEX quality_incident_open_key ON quality_incident (rule, tenant_id, project_id, device_id, metric) WHERE closed_at IS NULL;
CREATE INDEX quality_incident_subject_idx ON quality_incident (rule, tenant_id, project_id, device_id, metric, closed_at DESC);
CREATE INDEX quality_incident_tenant_id_idx ON quality_incident (tenant_id, opened_at DESC);
COMMENT ON TABLE quality_incident IS
    'One row is one time span in which one rule failed for one tenant, project, device or series; failing again soon after it closed '
    'continues it.';
COMMENT ON COLUMN quality_incident.last_seen_at IS 'Horizon of the last evaluation that failed.';
COMMENT ON COLUMN quality_incident.told_at IS 'When its last row of quality_result was written.';
COMMENT ON COLUMN quality_incident.flaps IS 'How often it was good and failed again.';
COMMENT ON COLUMN quality_incident.evaluations IS 'How many evaluations failed.';
COMMENT ON COLUMN quality_incident.value IS 'Of the last evaluation that failed, as threshold, message, example and the Kafka record.';

-- What rules learn, kept up to date from new messages only.
CREATE TABLE quality_cadence (
    first_received_at timestamptz NOT NULL,
    last_received_at timestamptz NOT NULL,
    last_offset bigint NOT NULL,
    messages bigint NOT NULL,
    weight double precision NOT NULL,
    gaps double precision NOT NULL,
    squares double precision NOT NULL,
    skew_seconds double precision,
    skew_samples integer NOT NULL DEFAULT 0,
    pauses integer NOT NULL DEFAULT 0,
    last_partition integer NOT NULL,
    tenant_id text NOT NULL,
    project_id text NOT NULL,
    device_id text NOT NULL,
    longest_seconds double precision NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant_id, project_id, device_id)
) WITH (fillfactor = 50);
COMMENT ON TABLE quality_cadence IS
    'One row is how one device usually sends, or (# as device, which MQTT allows in no name) a whole project in minutes with any '
    'message: learnt from the times at which messages were received.';
COMMENT ON COLUMN quality_cadence.weight IS
    'Number of intervals in gaps (their sum, seconds) and squares (sum of their squares); all three are halved now and then, so that old '
    'ones fade.';
COMMENT ON COLUMN quality_cadence.pauses IS
    'Intervals far beyond the usual ones; see quality_pause. Four and more within three days or more are a habit.';
COMMENT ON COLUMN quality_cadence.longest_seconds IS 'The longest interval that is no pause; fades with the others.';
COMMENT ON COLUMN quality_cadence.skew_seconds IS
    'Usual distance of its newest event time from the receive time; positive: its clock is ahead. Null: it names no times.';

-- A pause is remembered by the weekday on which it began: a weekend is no measure for other days, and not forgotten for nights.
CREATE TABLE quality_pause (
    begun_at timestamptz NOT NULL,
    seconds double precision NOT NULL,
    weekday smallint NOT NULL CHECK (weekday BETWEEN 1 AND 7),
    tenant_id text NOT NULL,
    project_id text NOT NULL,
    device_id text NOT NULL,
    PRIMARY KEY (tenant_id, project_id, device_id, weekday)
) WITH (fillfactor = 70);
COMMENT ON TABLE quality_pause IS
    'One row is about the longest pause of the last three weeks that a device (# as device: a project) began on one weekday.';
COMMENT ON COLUMN quality_pause.weekday IS 'Of begun_at in UTC; 1 is Monday.';

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
COMMENT ON TABLE quality_gap IS
    'One row is one gap in a sequence that sequence_gap noticed and will judge once its window_seconds are over.';
COMMENT ON COLUMN quality_gap.noticed_at IS 'Horizon of the evaluation that noticed it.';

CREATE TABLE quality_constant (
    since timestamptz NOT NULL,
    value double precision NOT NULL,
    series_id integer PRIMARY KEY
) WITH (fillfactor = 70);
COMMENT ON TABLE quality_constant IS
    'One row is one numeric series that never seems to change: stuck_value does not look at it again until it does.';

CREATE TABLE quality_recheck (
    bucket timestamptz NOT NULL,
    noticed_at timestamptz NOT NULL,
    series_id integer NOT NULL,
    PRIMARY KEY (series_id, bucket)
);
COMMENT ON TABLE quality_recheck IS
    'One row is one hour of measurement_1h that differed from its measurements, and is compared again at each evaluation until it does '
    'not.';
