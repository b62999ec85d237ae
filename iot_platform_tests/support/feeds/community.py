"""Fills measurement by SQL as a fleet would, the same in both editions: a few devices whose readings drift, reported in milliseconds."""

from datetime import datetime, timedelta

from iot_platform.settings import Settings
from iot_platform_tests.support.feeds.drain import query

TENANT, PROJECT = "1968193631353446400", "1968193691042586624"

_PROJECT = "INSERT INTO project (tenant_id, project_id) VALUES (%s, %s) ON CONFLICT DO NOTHING"
_ADD = """
INSERT INTO series (identity, tenant_id, project_id, device_id, metric)
SELECT sha256(('series ' || n)::bytea), %s, %s, 'device-' || (n - 1) / 5,
       (ARRAY['temp', 'humidity', 'rssi', 'ok', 'state'])[1 + (n - 1) %% 5]
FROM generate_series(1, %s) n ON CONFLICT DO NOTHING"""
_FILL = """
INSERT INTO measurement (time, series_id, value, value_text)
SELECT date_trunc('milliseconds', w.start + n * w.step + (s.series_id %% 97) * w.step / 100), s.series_id,
       CASE s.metric
           WHEN 'temp' THEN round((20 + s.series_id %% 10 + 8 * sin(n / 300.0 + s.series_id) + (hashint4(n) %% 50) / 500.0)::numeric, 2)
           WHEN 'humidity' THEN round((55 + 10 * sin(n / 200.0 + s.series_id))::numeric, 1)
           WHEN 'rssi' THEN -60 - s.series_id %% 20 - abs(hashint4(n + s.series_id)) %% 6
           WHEN 'ok' THEN (abs(hashint4(n)) %% 100 > 0)::integer END,
       CASE s.metric WHEN 'ok' THEN CASE abs(hashint4(n)) %% 100 WHEN 0 THEN 'false' ELSE 'true' END
           WHEN 'state' THEN (ARRAY['running', 'stopped'])[1 + (abs(hashint4(n)) %% 20 = 0)::integer] END
FROM (SELECT %s::timestamptz AS start, %s::interval AS step, %s::integer AS count, %s::integer AS series) w
CROSS JOIN LATERAL generate_series(0, w.count - 1) n
CROSS JOIN LATERAL (SELECT * FROM series ORDER BY series_id LIMIT w.series) s
ORDER BY n, s.series_id
ON CONFLICT DO NOTHING"""


def fill(settings: Settings, start: datetime, *, series: int, count: int, step: timedelta) -> None:
    """`count` measurements of each of the first `series` series, one every `step` from `start` on, in order of time."""
    query(settings, _PROJECT, TENANT, PROJECT)
    query(settings, _ADD, TENANT, PROJECT, series)
    query(settings, _FILL, start, step, count, series)
