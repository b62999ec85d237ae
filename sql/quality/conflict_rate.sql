-- Projects of which too many measurements of an hour stand against another value of their series at that time, so that one of the two is
-- not stored; where a project keeps both nothing is missing. The example is the hour's first, or (of hours before examples were kept) none.
WITH hour AS (
    SELECT date_trunc('hour', f.first_received_at) AS hour FROM quality_feed f WHERE f.feed_position > %(after)s
        AND f.feed_position <= %(upto)s AND f.records > 0
    UNION SELECT date_trunc('hour', f.last_received_at) FROM quality_feed f WHERE f.feed_position > %(after)s
        AND f.feed_position <= %(upto)s AND f.records > 0
), counted AS (
    SELECT a.tenant_id, a.project_id, a.hour, sum(a.measurement_conflicts) AS conflicts,
           sum(a.measurements + a.measurement_duplicates + a.measurement_conflicts) AS measurements,
           (array_agg(a.conflict_example ORDER BY a.kafka_partition) FILTER (WHERE a.conflict_example IS NOT NULL))[1] AS example
    FROM hour h JOIN accounting_1h a USING (hour)
    WHERE a.project_id <> '' GROUP BY 1, 2, 3
    HAVING max(a.last_committed_at) >= %(since)s AND sum(a.measurement_conflicts) > 0
), share AS (
    SELECT DISTINCT ON (c.tenant_id, c.project_id) c.*, (c.conflicts / c.measurements)::double precision AS share
    FROM counted c ORDER BY c.tenant_id, c.project_id, c.hour DESC
)
INSERT INTO quality_found (tenant_id, project_id, device_id, metric, failed, value, threshold, window_from, window_to, message, example,
    kafka_partition, kafka_offset, severity, clear_seconds, hold_seconds)
SELECT c.tenant_id, c.project_id, '', '', true, round(c.share::numeric, 4), s.threshold, c.hour, c.hour + interval '1 hour',
       c.conflicts || ' of ' || c.measurements
           || ' measurements contradict another one of their series and time: one of the two is not stored'
           || coalesce(', such as ' || (c.example ->> 'stored') || ' and not ' || (c.example ->> 'said') || ' of '
               || (c.example ->> 'metric'), ''),
       c.example, (c.example ->> 'kafka_partition')::integer, (c.example ->> 'kafka_offset')::bigint,
       s.severity, s.clear_seconds, s.hold_seconds
FROM share c
CROSS JOIN LATERAL quality_setting('conflict_rate', c.tenant_id, c.project_id, '') s
WHERE c.share > (SELECT min(r.threshold) FROM quality_rule r WHERE r.rule = 'conflict_rate')
  AND s.enabled AND c.share > s.threshold AND c.conflicts >= (s.parameters ->> 'least_conflicts')::double precision
  AND 'keep' IS DISTINCT FROM (
      SELECT o.value FROM project_option o
      WHERE o.name = 'conflicts' AND (o.tenant_id, o.project_id) IN (('', ''), (c.tenant_id, ''), (c.tenant_id, c.project_id))
      ORDER BY o.project_id DESC, o.tenant_id DESC LIMIT 1
  )
ON CONFLICT DO NOTHING
