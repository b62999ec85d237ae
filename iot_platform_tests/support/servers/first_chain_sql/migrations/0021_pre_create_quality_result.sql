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
    'One row is one finding of one quality rule: when something began to fail, each hour while it fails, and (status OK) when it was good again.';
COMMENT ON COLUMN quality_result.evaluated_at IS 'The horizon of the evaluation: what was received until then was judged.';
COMMENT ON COLUMN quality_result.device_id IS 'Empty where the finding is about more than one device (or a device without a name). As tenant_id, project_id and metric.';
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
    'One row is one time span in which one rule failed for one tenant, project, device or series; failing again soon after it closed continues it.';
COMMENT ON COLUMN quality_incident.last_seen_at IS 'Horizon of the last evaluation that failed.';
COMMENT ON COLUMN quality_incident.told_at IS 'When its last row of quality_result was written.';
COMMENT ON COLUMN quality_incident.flaps IS 'How often it was good and failed again.';
COMMENT ON COLUMN quality_incident.evaluations IS 'How many evaluations failed.';
COMMENT ON COLUMN quality_incident.value IS 'Of the last evaluation that failed, as threshold, message, example and the Kafka record.';
