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
COMMENT ON TABLE quality_pause IS 'One row is about the longest pause of the last three weeks that a device (# as device: a project) began on one weekday.';
COMMENT ON COLUMN quality_pause.weekday IS 'Of begun_at in UTC; 1 is Monday.';

INSERT INTO quality_pause (begun_at, seconds, weekday, tenant_id, project_id, device_id)
SELECT k.last_received_at, k.pause_seconds, d.weekday, k.tenant_id, k.project_id, k.device_id
FROM quality_cadence k CROSS JOIN generate_series(1, 7) AS d (weekday) WHERE k.pauses >= 4 AND k.pause_seconds > 0;

ALTER TABLE quality_cadence ADD COLUMN longest_seconds double precision NOT NULL DEFAULT 0;
COMMENT ON COLUMN quality_cadence.longest_seconds IS 'The longest interval that is no pause; fades with the others.';
COMMENT ON TABLE quality_cadence IS
    'One row is how one device usually sends, or (# as device, which MQTT allows in no name) a whole project in minutes with any message: learnt from the times at which messages were received.';
COMMENT ON COLUMN quality_cadence.pauses IS 'Intervals far beyond the usual ones; see quality_pause. Four and more within three days or more are a habit.';
COMMENT ON COLUMN quality_cadence.pause_seconds IS 'Not used any more: see quality_pause.';

UPDATE quality_rule SET threshold = CASE WHEN threshold = 20 THEN 16 ELSE threshold END, parameters = '{"gone_days": 14}' || parameters,
    description = 'A whole project is silent: nothing received for longer than window_seconds and than 5 of the usual intervals between minutes with any message plus threshold times their deviation (less where they never were a third as long). Pauses as of devices; after gone_days the incident ends.'
WHERE rule = 'freshness_project' AND tenant_id = '' AND metric = '';
UPDATE quality_rule SET parameters = '{"gone_days": 14}' || parameters,
    description = 'A device is silent: nothing received for longer than window_seconds and than 5 of its usual intervals plus threshold times their deviation. Pauses that it makes again and again are learnt by weekday. After gone_days of silence it counts as gone: the incident ends.'
WHERE rule = 'freshness_device' AND tenant_id = '' AND metric = '';
