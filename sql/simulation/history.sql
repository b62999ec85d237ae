-- Bookkeeping of `iot simulate --history`, which runs this file as the owner of the database the first time: a database that nobody
-- simulates in has no such schema. Its measurements never were messages. They are accounted like all others, so that the audit's sums hold,
-- under a Kafka partition that cannot exist.
CREATE SCHEMA IF NOT EXISTS simulation;
COMMENT ON SCHEMA simulation IS 'What `iot simulate --history` remembers; nothing of the platform reads it.';

CREATE TABLE IF NOT EXISTS simulation.history (
    seed bigint PRIMARY KEY,
    starts_at timestamptz NOT NULL,
    ends_at timestamptz NOT NULL,
    filled_to timestamptz NOT NULL,
    measurements bigint NOT NULL DEFAULT 0,
    started_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    options jsonb NOT NULL
) WITH (fillfactor = 50);
COMMENT ON TABLE simulation.history IS
    'One row is one history that `iot simulate --history` wrote, or has begun to write: measurements of a simulated fleet that never '
    'were messages.';
COMMENT ON COLUMN simulation.history.starts_at IS 'The period covered: from here to ends_at, without it.';
COMMENT ON COLUMN simulation.history.filled_to IS 'Measurements before this are there; a repeated command goes on here.';
COMMENT ON COLUMN simulation.history.finished_at IS 'When all was written, series_latest included; null before.';
COMMENT ON COLUMN simulation.history.options IS
    'Size of the fleet and number of measurements, as asked for: the same options give the same measurements.';

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'iot_writer') THEN
        GRANT USAGE ON SCHEMA simulation TO iot_writer;
        GRANT SELECT, INSERT, UPDATE ON simulation.history TO iot_writer;
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'iot_reader') THEN
        GRANT USAGE ON SCHEMA simulation TO iot_reader;
        GRANT SELECT ON simulation.history TO iot_reader;
    END IF;
END
$$;
