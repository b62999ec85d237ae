-- What rules learn, kept up to date from new messages only.
CREATE TABLE quality_cadence (
    first_received_at timestamptz NOT NULL,
    last_received_at timestamptz NOT NULL,
    last_offset bigint NOT NULL,
    messages bigint NOT NULL,
    weight double precision NOT NULL,
    gaps double precision NOT NULL,
    squares double precision NOT NULL,
    pause_seconds double precision NOT NULL DEFAULT 0,
    skew_seconds double precision,
    skew_samples integer NOT NULL DEFAULT 0,
    pauses integer NOT NULL DEFAULT 0,
    last_partition integer NOT NULL,
    tenant_id text NOT NULL,
    project_id text NOT NULL,
    device_id text NOT NULL,
    PRIMARY KEY (tenant_id, project_id, device_id)
) WITH (fillfactor = 50);
COMMENT ON TABLE quality_cadence IS 'One row is how one device usually sends: learnt from the times at which its messages were received.';
COMMENT ON COLUMN quality_cadence.weight IS 'Number of intervals in gaps (their sum, seconds) and squares (sum of their squares); all three are halved now and then, so that old ones fade.';
COMMENT ON COLUMN quality_cadence.pauses IS 'Intervals far beyond the usual ones; pause_seconds is about as long as the longest of them. Four and more within three days or more are a habit.';
COMMENT ON COLUMN quality_cadence.skew_seconds IS 'Usual distance of its newest event time from the receive time; positive: its clock is ahead. Null: it names no times.';

CREATE TABLE quality_constant (
    since timestamptz NOT NULL,
    value double precision NOT NULL,
    series_id integer PRIMARY KEY
) WITH (fillfactor = 70);
COMMENT ON TABLE quality_constant IS 'One row is one numeric series that never seems to change: stuck_value does not look at it again until it does.';

CREATE TABLE quality_recheck (
    bucket timestamptz NOT NULL,
    noticed_at timestamptz NOT NULL,
    series_id integer NOT NULL,
    PRIMARY KEY (series_id, bucket)
);
COMMENT ON TABLE quality_recheck IS 'One row is one hour of measurement_1h that differed from its measurements, and is compared again at each evaluation until it does not.';
