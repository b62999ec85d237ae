-- Noted measurements of one day; each series and hour is a segment of its own.
INSERT INTO quality_measurement AS q
SELECT m.time, n.series_id, n.segment, m.value, m.value_text, true
FROM (
    SELECT g.*, (%(segment)s + row_number() OVER ())::integer AS segment FROM (
        SELECT l.series_id, min(l.time_from) AS time_from, max(l.time_to) AS time_to FROM quality_late l
        WHERE l.feed_position > %(after)s AND l.feed_position <= %(upto)s
          AND l.time_from >= %(day)s AND l.time_from < %(day)s::timestamptz + interval '1 day'
        GROUP BY l.series_id, date_trunc('hour', l.time_from)
    ) g
) n
CROSS JOIN LATERAL (
    SELECT m.time, m.value, m.value_text FROM measurement m
    WHERE m.series_id = n.series_id AND m.time >= n.time_from AND m.time <= n.time_to
      AND m.time >= %(day)s AND m.time < %(day)s::timestamptz + interval '1 day' OFFSET 0
) m
ON CONFLICT (series_id, time) DO UPDATE SET fresh = true
