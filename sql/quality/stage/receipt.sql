-- When the messages of this stretch were received: whole minutes, joined; usually one range.
SELECT lower(r), upper(r) FROM (
    SELECT unnest(range_agg(tstzrange(minute - %(punctual)s * interval '1 second',
        minute + (60 + %(punctual)s) * interval '1 second'))) AS r
    FROM (SELECT DISTINCT date_trunc('minute', q.received_at) AS minute FROM quality_message q) minutes
) ranges ORDER BY 1 DESC LIMIT %(most)s
