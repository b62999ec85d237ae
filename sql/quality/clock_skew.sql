-- Devices whose newest event time is not where it usually is from the time of receipt: the newest, so that single late messages do not
-- count; nor do a device's first messages, which may all be late. Where no message of this stretch showed a newer time, they may all have
-- been late, and only a much longer distance counts; nothing is late from the future: there our clock alone is the measure. What is usual
-- is learnt while all is well.
WITH sent AS (
    SELECT c.tenant_id, c.project_id, c.device_id, max(q.received_at) AS received_at
    FROM quality_message q JOIN source c USING (source_id)
    WHERE q.names_time AND NOT q.duplicate GROUP BY 1, 2, 3
), shown AS (
    SELECT s.*, extract(epoch FROM t.time - s.received_at)::double precision AS skew, t.time AS newest,
        coalesce(t.time = t.fresh_time, false) AS moved
    FROM sent s
    JOIN (
        SELECT q.tenant_id, q.project_id, q.device_id, max(q.latest) AS time, max(m.time) AS fresh_time
        FROM quality_series q LEFT JOIN quality_measurement m ON m.series_id = q.series_id AND m.time = q.latest AND m.fresh
            GROUP BY 1, 2, 3
    ) t USING (tenant_id, project_id, device_id)
), judged AS (
    SELECT h.*, k.messages, k.skew_seconds, k.skew_samples, s.severity, s.clear_seconds, s.hold_seconds, s.enabled, s.threshold,
           (s.parameters ->> 'least_samples')::integer AS least_samples,
           (s.parameters ->> 'absolute_seconds')::double precision AS absolute,
           CASE WHEN h.moved THEN 5 ELSE 20 END * k.gaps / greatest(k.weight, 1) AS doubt
    FROM shown h
    JOIN quality_cadence k USING (tenant_id, project_id, device_id)
    CROSS JOIN LATERAL quality_setting('clock_skew', h.tenant_id, h.project_id, '') s
), verdict AS (
    SELECT j.*, j.enabled AND j.messages >= j.least_samples AND (abs(j.skew) > j.absolute + CASE WHEN j.skew < 0 THEN j.doubt ELSE 0 END
        OR (j.skew_samples >= j.least_samples AND abs(j.skew - j.skew_seconds) > j.threshold + j.doubt)) AS failed
    FROM judged j
), learnt AS (  -- the first ten samples equally, later ones by a second at most: what is usual must not follow a clock that drifts
    UPDATE quality_cadence k SET skew_samples = least(k.skew_samples + 1, 11),
        skew_seconds = CASE WHEN k.skew_samples > 10 THEN k.skew_seconds + greatest(least((v.skew - k.skew_seconds) / 10, 1), -1)
            ELSE coalesce(k.skew_seconds, 0) + (v.skew - coalesce(k.skew_seconds, 0)) / (k.skew_samples + 1) END
    FROM verdict v
    WHERE NOT v.failed AND v.moved AND v.messages >= v.least_samples AND abs(v.skew) <= v.absolute
      AND k.tenant_id = v.tenant_id AND k.project_id = v.project_id AND k.device_id = v.device_id
)
INSERT INTO quality_found (tenant_id, project_id, device_id, metric, failed, value, threshold, window_from, window_to, message, example,
    severity, clear_seconds, hold_seconds)
SELECT v.tenant_id, v.project_id, v.device_id, '', v.failed, round(v.skew::numeric, 1),
       round(CASE WHEN v.skew > v.absolute THEN v.absolute WHEN -v.skew > v.absolute + v.doubt THEN v.absolute + v.doubt
           ELSE v.threshold + v.doubt END::numeric, 1), v.received_at, v.received_at,
       'its clock is ' || round(abs(v.skew)) || ' s ' || CASE WHEN v.skew > 0 THEN 'ahead' ELSE 'behind' END
           || CASE WHEN v.skew_samples >= v.least_samples THEN '; usually ' || round(v.skew_seconds) || ' s' ELSE '' END,
       jsonb_build_object('time', v.newest, 'received_at', v.received_at), v.severity, v.clear_seconds, v.hold_seconds
FROM verdict v
WHERE v.failed OR (v.moved AND EXISTS (
    SELECT FROM quality_incident i WHERE i.rule = 'clock_skew' AND i.closed_at IS NULL
      AND i.tenant_id = v.tenant_id AND i.project_id = v.project_id AND i.device_id = v.device_id))
ON CONFLICT DO NOTHING
