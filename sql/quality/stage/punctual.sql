-- Measurements of a range of times, found by series. OFFSET 0 keeps the index on (series_id, time) the only way to them.
INSERT INTO quality_measurement
SELECT m.time, t.series_id, %(segment)s, m.value, m.value_text, true
FROM quality_series t
CROSS JOIN LATERAL (
    SELECT m.time, m.value, m.value_text FROM measurement m
    WHERE m.series_id = t.series_id AND m.time >= %(first_time)s AND m.time < %(end_time)s OFFSET 0
) m
WHERE t.latest >= %(first_time)s
ON CONFLICT DO NOTHING
