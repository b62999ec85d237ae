-- Hours of measurement_1h that differ from their measurements. A sample of the hours that got measurements, noted (late) ones first, and
-- all that differed before. Hours whose change is noted for the next refresh may differ.
WITH touched AS (
    SELECT m.series_id, date_trunc('hour', m.time) AS bucket, max(m.segment) AS segment FROM quality_measurement m
    WHERE m.time < (SELECT t.threshold FROM rollup_state t)  -- later hours are computed from measurement
    GROUP BY 1, 2
), wanted AS (
    (SELECT t.series_id, t.bucket FROM touched t
     ORDER BY t.segment > 1000 DESC, hashint8(t.series_id + %(upto)s) LIMIT (
         SELECT (s.parameters ->> 'sample')::integer FROM quality_setting('rollup_equals_source', '', '', '') s))
    UNION
    SELECT q.series_id, q.bucket FROM quality_recheck q
), compared AS (
    SELECT w.series_id, w.bucket, s.tenant_id, s.project_id, s.device_id, s.metric, m AS source, r AS rollup,
           (m.value_count, m.numbers, m.value_min, m.value_max, m.value_first, m.value_last)
               IS DISTINCT FROM (r.value_count, r.numbers, r.value_min, r.value_max, r.value_first, r.value_last)  -- noqa: PRS
           OR (m.value_sum IS NULL) <> (r.value_sum IS NULL)
               OR abs(m.value_sum - r.value_sum) > 1e-9 * greatest(abs(m.value_sum),
               m.numbers * least(greatest(abs(m.value_min), abs(m.value_max)), 1e290), 1e-200) AS differs,
           EXISTS (SELECT FROM rollup_change c WHERE c.series_id = w.series_id AND c.bucket = w.bucket) AS noted
    FROM wanted w
    JOIN series s USING (series_id)
    LEFT JOIN LATERAL (SELECT h.* FROM rollup_hours(w.series_id, w.bucket, w.bucket + interval '1 hour') h) m ON true
    LEFT JOIN LATERAL (
        SELECT n.bucket, n.value_count, n.numbers, n.value_min, n.value_max, n.value_sum, n.value_first, n.value_last
            FROM measurement_1h_named n
        WHERE n.series_id = w.series_id AND n.bucket = w.bucket OFFSET 0  -- hour by hour: a join computes the open hours of all series
    ) r ON true
    WHERE NOT EXISTS (
        SELECT FROM retention_mark k WHERE k.table_name IN ('measurement', 'measurement_1h') AND k.tenant_id IN ('', s.tenant_id)
          AND k.project_id IN ('', s.project_id) AND k.removed_before > w.bucket)
), differing AS (
    SELECT c.* FROM compared c WHERE c.differs AND NOT c.noted
), settled AS (
    DELETE FROM quality_recheck q WHERE NOT EXISTS (SELECT FROM differing d WHERE d.series_id = q.series_id AND d.bucket = q.bucket)
), remembered AS (
    INSERT INTO quality_recheck (series_id, bucket, noticed_at) SELECT d.series_id, d.bucket, %(horizon)s FROM differing d
        ON CONFLICT DO NOTHING
)
INSERT INTO quality_found (tenant_id, project_id, device_id, metric, failed, value, threshold, window_from, window_to, message, example,
    severity, clear_seconds, hold_seconds)
SELECT d.tenant_id, d.project_id, d.device_id, d.metric, true, count(*), t.threshold, min(d.bucket), max(d.bucket) + interval '1 hour',
       count(*) || ' hour(s) of measurement_1h differ from measurement: `iot rollup rebuild` mends them',
       (array_agg(jsonb_build_object('time', d.bucket, 'source', to_jsonb(d.source), 'rollup', to_jsonb(d.rollup))
           ORDER BY d.bucket DESC))[1],
       t.severity, t.clear_seconds, t.hold_seconds
FROM differing d
CROSS JOIN LATERAL quality_setting('rollup_equals_source', d.tenant_id, d.project_id, d.metric) t
WHERE t.enabled
GROUP BY d.tenant_id, d.project_id, d.device_id, d.metric, t.threshold, t.severity, t.clear_seconds, t.hold_seconds
HAVING count(*) > t.threshold
ON CONFLICT DO NOTHING
