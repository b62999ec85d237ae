-- `iot simulate --history` writes measurements that never were messages. They are accounted like all others, so that the audit's sums hold,
-- under a Kafka partition that cannot exist.
CREATE TABLE simulated_history (
    seed bigint PRIMARY KEY,
    starts_at timestamptz NOT NULL,
    ends_at timestamptz NOT NULL,
    filled_to timestamptz NOT NULL,
    measurements bigint NOT NULL DEFAULT 0,
    started_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    options jsonb NOT NULL
) WITH (fillfactor = 50);
COMMENT ON TABLE simulated_history IS
    'One row is one history that `iot simulate --history` wrote, or has begun to write: measurements of a simulated fleet that never were messages.';
COMMENT ON COLUMN simulated_history.starts_at IS 'The period covered: from here to ends_at, without it.';
COMMENT ON COLUMN simulated_history.filled_to IS 'Measurements before this are there; a repeated command goes on here.';
COMMENT ON COLUMN simulated_history.finished_at IS 'When all was written, series_latest included; null before.';
COMMENT ON COLUMN simulated_history.options IS 'Size of the fleet and number of measurements, as asked for: the same options give the same measurements.';
COMMENT ON COLUMN accounting_1h.kafka_partition IS
    'Kafka partition; -1: measurements of a simulated history, which were no messages, under the hour where each written stretch of time begins.';
