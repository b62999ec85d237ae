-- Many new series at once: of one device (names made up by the payload), or of a project that is not new. Ids ascend, so that only those
-- of the last window are read; the rule remembers below which id all are older.
WITH floor AS (
    SELECT coalesce((w.state ->> 'older_than')::integer, (SELECT max(s.series_id) FROM series s) - 100000, 0) AS series_id, r.window_seconds
    FROM quality_watermark w JOIN quality_rule r USING (rule)
    WHERE w.rule = 'new_series_burst' AND r.tenant_id = '' AND r.metric = ''
), recent AS (
    SELECT s.*, s.first_seen_at >= now() - f.window_seconds * interval '1 second' AS new FROM series s CROSS JOIN floor f
        WHERE s.series_id > f.series_id
), remembered AS (
    UPDATE quality_watermark w SET state = w.state || jsonb_build_object('older_than',
        (SELECT coalesce(max(r.series_id) FILTER (WHERE NOT r.new), max(f.series_id)) FROM floor f LEFT JOIN recent r ON true))
    WHERE w.rule = 'new_series_burst'
), device AS (
    SELECT r.tenant_id, r.project_id, r.device_id, count(*) AS rows, min(r.first_seen_at) AS first_seen_at,
        max(r.first_seen_at) AS last_seen_at,
           (array_agg(r.metric ORDER BY r.series_id DESC))[1:5] AS metrics
    FROM recent r WHERE r.new GROUP BY 1, 2, 3
), subject AS (
    SELECT d.*, '' AS metric, 'device' AS what, NULL::timestamptz AS known_since FROM device d
    UNION ALL
    SELECT d.tenant_id, d.project_id, '', sum(d.rows), min(d.first_seen_at), max(d.last_seen_at),
        (array_agg(d.device_id ORDER BY d.rows DESC))[1:5], '*', 'project', p.first_seen_at
    FROM device d JOIN project p USING (tenant_id, project_id)
    GROUP BY d.tenant_id, d.project_id, p.first_seen_at
)
INSERT INTO quality_found (tenant_id, project_id, device_id, metric, failed, value, threshold, window_from, window_to, message, example,
    severity, clear_seconds, hold_seconds)
SELECT b.tenant_id, b.project_id, b.device_id, b.metric, true, b.rows, s.threshold, b.first_seen_at, b.last_seen_at,
       b.rows || ' new series of one ' || b.what,
       jsonb_build_object(CASE b.what WHEN 'device' THEN 'metrics' ELSE 'devices' END, b.metrics),
       s.severity, s.clear_seconds, s.hold_seconds
FROM subject b
CROSS JOIN LATERAL quality_setting('new_series_burst', b.tenant_id, b.project_id, '') s
WHERE b.rows > (SELECT min(r.threshold) FROM quality_rule r WHERE r.rule = 'new_series_burst') AND s.enabled AND b.rows > s.threshold
  AND (b.what = 'device' OR b.known_since < now() - (s.parameters ->> 'project_seconds')::double precision * interval '1 second')
ON CONFLICT DO NOTHING
