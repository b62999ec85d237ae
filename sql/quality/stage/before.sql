-- The measurement before each run of them, if it is not older than a day.
INSERT INTO quality_measurement
SELECT m.time, t.series_id, %(segment)s, m.value, m.value_text, false
FROM (SELECT q.series_id, min(q.time) AS first_time FROM quality_measurement q WHERE q.segment = %(segment)s GROUP BY 1) t
CROSS JOIN LATERAL (
    SELECT m.time, m.value, m.value_text FROM measurement m
    WHERE m.series_id = t.series_id AND m.time < t.first_time
      AND m.time >= %(first_time)s::timestamptz - interval '1 day' AND m.time < %(end_time)s
    ORDER BY m.time DESC LIMIT 1
) m
ON CONFLICT DO NOTHING
