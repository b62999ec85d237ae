-- Noted measurements of one day with the one before and the one after; each series and hour is a segment of its own.
INSERT INTO quality_measurement
SELECT m.time, n.series_id, n.segment, m.value, m.value_text
FROM (
    SELECT g.*, (%(segment)s + row_number() OVER ())::integer AS segment FROM (
        SELECT l.series_id, min(l.time_from) AS time_from, max(l.time_to) AS time_to FROM quality_late l
        WHERE l.feed_position > %(after)s AND l.feed_position <= %(upto)s
          AND l.time_from >= %(day)s AND l.time_from < %(day)s::timestamptz + interval '1 day'
        GROUP BY l.series_id, date_trunc('hour', l.time_from)
    ) g
) n
CROSS JOIN LATERAL (
    SELECT a.time, a.value, a.value_text FROM (
        SELECT m.time, m.value, m.value_text FROM measurement m
        WHERE m.series_id = n.series_id AND m.time >= n.time_from AND m.time <= n.time_to
          AND m.time >= %(day)s AND m.time < %(day)s::timestamptz + interval '1 day' OFFSET 0
    ) a
    UNION ALL
    SELECT b.time, b.value, b.value_text FROM (
        SELECT m.time, m.value, m.value_text FROM measurement m
        WHERE m.series_id = n.series_id AND m.time < n.time_from
          AND m.time >= %(day)s::timestamptz - interval '1 day' AND m.time < %(day)s::timestamptz + interval '1 day'
        ORDER BY m.time DESC LIMIT 1
    ) b
    UNION ALL
    SELECT c.time, c.value, c.value_text FROM (
        SELECT m.time, m.value, m.value_text FROM measurement m
        WHERE m.series_id = n.series_id AND m.time > n.time_to
          AND m.time >= %(day)s AND m.time < %(day)s::timestamptz + interval '2 days'
        ORDER BY m.time LIMIT 1
    ) c
) m
ON CONFLICT DO NOTHING
