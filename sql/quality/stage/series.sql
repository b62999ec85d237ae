-- Series that may have got a measurement: of projects that sent something, with a latest one that is recent enough, and all that are noted.
INSERT INTO quality_series
SELECT s.series_id, s.tenant_id, s.project_id, s.device_id, s.metric, l.time
FROM (
    SELECT DISTINCT c.tenant_id, c.project_id FROM (SELECT DISTINCT q.source_id FROM quality_message q WHERE NOT q.duplicate) q
        JOIN source c USING (source_id)
) p
JOIN series s USING (tenant_id, project_id)
JOIN series_latest l USING (series_id)
WHERE l.time >= %(first_time)s
UNION
SELECT s.series_id, s.tenant_id, s.project_id, s.device_id, s.metric, l.time
FROM (SELECT DISTINCT n.series_id FROM quality_late n WHERE n.feed_position > %(after)s AND n.feed_position <= %(upto)s) n
JOIN series s USING (series_id)
JOIN series_latest l USING (series_id)
