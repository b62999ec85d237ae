-- A conflict is a value that the user will not find: one of each hour is named, so that somebody can look at it.
ALTER TABLE accounting_1h ADD COLUMN conflict_example jsonb;
COMMENT ON COLUMN accounting_1h.conflict_example IS
    'The first conflict of the hour: received_at, device_id, metric, time, stored (the value in measurement; texts in quotes, at most 200 '
    'characters of them), said (the other value, which only the message has), and the message: kafka_partition, kafka_offset, '
    'log_generation. Null: there was none.';
-- Hours with conflicts are few, or the dashboards would read the whole table for them. It is set once, so updates stay heap-only.
CREATE INDEX accounting_1h_conflict_example_idx ON accounting_1h (hour) WHERE conflict_example IS NOT NULL;

INSERT INTO quality_rule (rule, enabled, severity, threshold, window_seconds, clear_seconds, hold_seconds, parameters, description) VALUES
('conflict_rate', true, 'WARN', 0.01, 3600, 900, 7200, '{"least_conflicts": 10}',
 'More than threshold (a share), and at least parameters.least_conflicts, of a project''s measurements of an hour were not stored, because '
 'their series has another value at the same time.');
