-- What one evaluation looks at, in the session's temporary tables; filled anew for each stretch of the queue.
CREATE TEMPORARY TABLE IF NOT EXISTS quality_message (
    received_at timestamptz, kafka_offset bigint, source_id integer, kafka_partition integer, names_time boolean, duplicate boolean
);
CREATE TEMPORARY TABLE IF NOT EXISTS quality_series (
    series_id integer PRIMARY KEY, tenant_id text, project_id text, device_id text, metric text, latest timestamptz
);
-- Measurements to judge (fresh), and the neighbours of each run of them; only rows of one segment follow each other.
CREATE TEMPORARY TABLE IF NOT EXISTS quality_measurement (
    time timestamptz, series_id integer, segment integer, value double precision, value_text text, fresh boolean,
    PRIMARY KEY (series_id, time)
);
-- What a rule found: failed, or (of an open incident) seen to be good.
CREATE TEMPORARY TABLE IF NOT EXISTS quality_found (
    tenant_id text, project_id text, device_id text, metric text, failed boolean NOT NULL, value double precision,
    threshold double precision, window_from timestamptz, window_to timestamptz, message text, example jsonb, kafka_partition integer,
    kafka_offset bigint, severity text, clear_seconds integer, hold_seconds integer,
    PRIMARY KEY (tenant_id, project_id, device_id, metric)
);
