-- What was learnt of a device (null: of a whole project), and its open incidents.
WITH subject AS (
    SELECT s.series_id FROM series s WHERE s.tenant_id = %(tenant)s AND s.project_id = %(project)s
        AND (%(device)s::text IS NULL OR s.device_id = %(device)s)
), cadence AS (
    DELETE FROM quality_cadence k
    WHERE k.tenant_id = %(tenant)s AND k.project_id = %(project)s AND (%(device)s::text IS NULL OR k.device_id = %(device)s)
        RETURNING k.device_id
), pause AS (
    DELETE FROM quality_pause p
    WHERE p.tenant_id = %(tenant)s AND p.project_id = %(project)s AND (%(device)s::text IS NULL OR p.device_id = %(device)s)
), constant AS (
    DELETE FROM quality_constant c USING subject s WHERE c.series_id = s.series_id
), gap AS (
    DELETE FROM quality_gap g USING subject s WHERE g.series_id = s.series_id
), closed AS (
    UPDATE quality_incident i SET closed_at = greatest(now(), i.last_seen_at), told_at = now(), message = 'forgotten: ' || i.message
    WHERE i.closed_at IS NULL AND i.tenant_id = %(tenant)s AND i.project_id = %(project)s
        AND (%(device)s::text IS NULL OR i.device_id = %(device)s)
    RETURNING i.*
), told AS (
    INSERT INTO quality_result (evaluated_at, incident_id, window_from, window_to, rule, tenant_id, project_id, device_id, metric, status,
        message)
    SELECT c.closed_at, c.incident_id, c.last_seen_at, c.closed_at, c.rule, c.tenant_id, c.project_id, c.device_id, c.metric, 'OK',
        'forgotten by hand' FROM closed c
)
SELECT (SELECT count(*) FROM cadence c WHERE c.device_id <> '#'), (SELECT count(*) FROM closed)
