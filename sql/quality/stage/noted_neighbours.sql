-- The measurements before and after each segment of noted ones, if they are not further than a day.
INSERT INTO quality_measurement
SELECT m.time, n.series_id, n.segment, m.value, m.value_text, false
FROM (
    SELECT q.series_id, q.segment, min(q.time) AS time_from, max(q.time) AS time_to FROM quality_measurement q
    WHERE q.segment > %(segment)s GROUP BY 1, 2
) n
CROSS JOIN LATERAL (
    (SELECT m.time, m.value, m.value_text FROM measurement m
     WHERE m.series_id = n.series_id AND m.time < n.time_from
       AND m.time >= %(day)s::timestamptz - interval '1 day' AND m.time < %(day)s::timestamptz + interval '1 day'
     ORDER BY m.time DESC LIMIT 1)
    UNION ALL
    (SELECT m.time, m.value, m.value_text FROM measurement m
     WHERE m.series_id = n.series_id AND m.time > n.time_to
       AND m.time >= %(day)s AND m.time < %(day)s::timestamptz + interval '2 days'
     ORDER BY m.time LIMIT 1)
) m
ON CONFLICT DO NOTHING
