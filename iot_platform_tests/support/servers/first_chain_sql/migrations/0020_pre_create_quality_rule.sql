-- What is looked for. A row without tenant, project and metric is a rule's default; others override some of its columns, the most
-- specific first: metric before project before tenant. sql/quality/<rule>.sql is the rule itself.
CREATE TABLE quality_rule (
    rule text NOT NULL,
    tenant_id text NOT NULL DEFAULT '',
    project_id text NOT NULL DEFAULT '',
    metric text NOT NULL DEFAULT '',
    enabled boolean,
    severity text CHECK (severity IN ('WARN', 'ERROR')),
    threshold double precision,
    window_seconds integer CHECK (window_seconds > 0),
    clear_seconds integer CHECK (clear_seconds >= 0),
    hold_seconds integer CHECK (hold_seconds >= 0),
    parameters jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(parameters) = 'object'),
    description text,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (rule, tenant_id, project_id, metric),
    CHECK (project_id = '' OR tenant_id <> ''),
    CHECK (tenant_id <> '' OR metric <> '' OR (enabled IS NOT NULL AND severity IS NOT NULL AND window_seconds IS NOT NULL
        AND clear_seconds IS NOT NULL AND hold_seconds IS NOT NULL AND description IS NOT NULL))
);
COMMENT ON TABLE quality_rule IS 'One row is the default of one quality rule, or what one tenant, project or metric has instead: null columns are inherited.';
COMMENT ON COLUMN quality_rule.tenant_id IS 'Empty: every tenant. As project_id and metric.';
COMMENT ON COLUMN quality_rule.threshold IS 'What a value must exceed, or fall short of, to fail; its meaning and unit are in description. Null: the rule judges nothing here.';
COMMENT ON COLUMN quality_rule.window_seconds IS 'Length of what is judged at once: an interval, or the least silence; see description.';
COMMENT ON COLUMN quality_rule.clear_seconds IS 'An incident closes when nothing failed for so long, or at once when what failed was seen to be good.';
COMMENT ON COLUMN quality_rule.hold_seconds IS 'Failing again within this time after closing continues the same incident.';
COMMENT ON COLUMN quality_rule.parameters IS 'More settings of the rule by name; those of the more specific row win one by one.';

INSERT INTO quality_rule (rule, enabled, severity, threshold, window_seconds, clear_seconds, hold_seconds, parameters, description) VALUES
('freshness_device', true, 'WARN', 16, 180, 0, 3600, '{"least_messages": 20}',
 'A device is silent: nothing received for longer than window_seconds and than 5 of its usual intervals plus threshold times their deviation. Pauses that it makes again and again are learnt.'),
('freshness_project', true, 'ERROR', 20, 300, 0, 3600, '{"least_messages": 50}',
 'A whole project is silent: nothing received for longer than window_seconds and than threshold times the usual interval between its messages.'),
('completeness', true, 'WARN', 0.5, 3600, 7200, 7200, '{"least_expected": 20}',
 'A device sent less than threshold (a share) of what its usual interval promises for a window_seconds long interval, and chance does not explain it.'),
('range', true, 'WARN', 0, 600, 86400, 3600, '{}',
 'More than threshold values outside of parameters min and max, set by metric.'),
('rate_of_change', true, 'WARN', NULL, 600, 86400, 3600, '{}',
 'A value changes by more than threshold per minute between two measurements of a series; set by metric.'),
('stuck_value', true, 'WARN', 30, 1800, 86400, 3600, '{"least_changes": 0.5}',
 'A number that used to change stays exactly the same for at least threshold measurements and window_seconds. Flags and texts are not judged.'),
('type_change', true, 'WARN', 0, 600, 86400, 3600, '{}',
 'More than threshold changes between number, boolean and text within one series.'),
('clock_skew', true, 'WARN', 300, 600, 86400, 3600, '{"absolute_seconds": 3300, "least_samples": 3}',
 'A device''s clock is more than threshold seconds away from where it usually is, or absolute_seconds from ours.'),
('duplicate_rate', true, 'WARN', 0.1, 3600, 900, 7200, '{"least_messages": 100}',
 'More than threshold (a share) of a project''s messages or measurements of an hour were there already.'),
('quarantine_rate', true, 'WARN', 0.05, 3600, 900, 7200, '{"least_messages": 20}',
 'More than threshold (a share) of a project''s messages of an hour are in quarantine for one reason; those that name no project are compared with all messages.'),
('new_series_burst', true, 'WARN', 100, 3600, 3600, 3600, '{"project_seconds": 86400}',
 'More than threshold new series of one device, or of one project that is older than project_seconds, within window_seconds.'),
('sequence_gap', true, 'WARN', 0, 600, 86400, 3600,
 '{"metrics": ["seq", "sequence", "seqno", "seq_no", "seq_num", "sequence_number", "counter", "msg_seq", "frame_counter"], "least_steps": 3}',
 'More than threshold numbers are missing in a series that counts its messages: one of parameters.metrics whose steps are mostly 1.'),
('rollup_equals_source', true, 'ERROR', 0, 1200, 0, 3600, '{"sample": 100}',
 'More than threshold of the rollup''s hours differ from their measurements. Up to parameters.sample of the hours that changed are compared; on Community a difference counts once it is window_seconds old.'),
('ledger_continuous', true, 'ERROR', 0, 3600, 0, 3600, '{}',
 'More than threshold offsets are missing between batches of the ledger, or are in two of them.');

-- What cannot be, whatever the sensor; percentages with some room for how sensors round.
INSERT INTO quality_rule (rule, metric, parameters) VALUES
('range', 'humidity', '{"min": -5, "max": 105}'),
('range', 'latitude', '{"min": -90, "max": 90}'),
('range', 'longitude', '{"min": -180, "max": 180}'),
('range', 'rssi', '{"min": -200, "max": 50}');

-- How far each rule looked. The feed numbers batches in the order in which they were seen, because they commit in another order than they
-- begin, and late data arrives in new batches: a position never misses one.
CREATE TABLE quality_watermark (
    rule text PRIMARY KEY,
    feed_position bigint NOT NULL DEFAULT 0,
    evaluated_at timestamptz,
    horizon timestamptz,
    seconds double precision,
    failing integer NOT NULL DEFAULT 0,
    state jsonb NOT NULL DEFAULT '{}',
    error text
) WITH (fillfactor = 50);
COMMENT ON TABLE quality_watermark IS 'One row is how far one quality rule (or the stages intake and cadence before them) has looked, and its last evaluation.';
COMMENT ON COLUMN quality_watermark.feed_position IS 'Batches of quality_feed up to this position are judged.';
COMMENT ON COLUMN quality_watermark.horizon IS 'Everything received until then was in the database at the last evaluation.';
COMMENT ON COLUMN quality_watermark.seconds IS 'How long the last evaluation took.';
COMMENT ON COLUMN quality_watermark.failing IS 'Tenants, projects, devices or series that failed in the last evaluation.';
COMMENT ON COLUMN quality_watermark.state IS 'What the rule remembers beyond the position.';
COMMENT ON COLUMN quality_watermark.error IS 'Why the last evaluation was rolled back; null when it was not. It will be repeated.';

CREATE TABLE quality_feed (
    feed_position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    batch_id bigint NOT NULL UNIQUE,
    committed_at timestamptz NOT NULL,
    from_offset bigint NOT NULL,
    to_offset bigint NOT NULL,
    first_received_at timestamptz,
    last_received_at timestamptz,
    kafka_partition integer NOT NULL,
    records integer NOT NULL,
    kind text NOT NULL
);
COMMENT ON TABLE quality_feed IS 'One row is one batch of the ledger that some quality rule has not judged yet, or that was committed recently.';

CREATE TABLE quality_note (
    noted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    time_from timestamptz NOT NULL,
    time_to timestamptz NOT NULL,
    series_id integer NOT NULL
);
COMMENT ON TABLE quality_note IS
    'One row is one series and hour in which a batch wrote measurements whose time is not about when they were received, or a replay wrote any: where quality rules must look. Written by drain and replay, taken by the next evaluation.';
CREATE TABLE quality_late (
    feed_position bigint NOT NULL,
    time_from timestamptz NOT NULL,
    time_to timestamptz NOT NULL,
    series_id integer NOT NULL
);
CREATE INDEX quality_late_feed_position_idx ON quality_late (feed_position);
COMMENT ON TABLE quality_late IS 'One row is one quality_note with its place in the feed.';
