-- What a tenant's login may read. Rules, each tested in integration/test_tenant_isolation.py:
-- * Who asks is session_user, which neither SET ROLE nor anything else short of a superuser changes.
-- * security_barrier: only leakproof conditions (=, <, >= … on names, times, numbers, texts) reach the tables, others see own rows only.
-- * Conditions that reach the tables must not meet rows of others either: EXPLAIN ANALYZE tells how many rows a filter removed. So names
--   are expressions with indexes of their own (0002), and measurements come by LATERAL … ORDER BY, which PostgreSQL can only plan as one
--   index scan for each own series.
-- * CASE WHEN a = b where a = b already holds: a condition on such a column is applied to joined, own rows, and finds no statistics.
-- * No series_id: a condition on it would reach the measurements of others.
-- Columns may be added at the end only: CREATE OR REPLACE VIEW allows nothing else.
CREATE OR REPLACE FUNCTION tenant.current_tenant() RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT r.tenant_id FROM public.tenant_role r WHERE r.role_name OPERATOR(pg_catalog.=) session_user
$$;
COMMENT ON FUNCTION tenant.current_tenant() IS 'The tenant whose login this session was opened with; null for everybody else.';

-- time_bucket is TimescaleDB's, in schema public, where a tenant may use nothing.
CREATE OR REPLACE FUNCTION tenant.time_bucket(width interval, moment timestamptz) RETURNS timestamptz
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN public.time_bucket(width, moment);
COMMENT ON FUNCTION tenant.time_bucket(interval, timestamptz) IS 'Begin of the interval of this width that holds the moment (UTC).';

-- A login may SET every timeout to 0, and neither LISTEN nor NOTIFY can be refused it: somebody must look after its transactions from
-- outside. A transaction that stays open keeps locks (a migration, a dropped chunk wait for it), dead rows, and the server's queue of
-- notifications, which Dagster's storage uses with every event: when it is full, runs fail. A session that does not read what it listens to
-- is in a transaction, too.
CREATE OR REPLACE FUNCTION end_tenant_sessions(in_the_way interval DEFAULT NULL, patience interval DEFAULT '60 s')
    RETURNS TABLE (role_name name, process_id integer, reason text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    crowded CONSTANT boolean := pg_notification_queue_usage() > 0.01;
    blocking integer[];
BEGIN
    -- Whoever ends them while somebody waits gets him his lock: sessions that open anew stand behind him in the queue.
    SELECT array_agg(b.pid) INTO blocking
    FROM (SELECT DISTINCT l.pid FROM pg_locks l WHERE NOT l.granted AND l.waitstart < clock_timestamp() - interval '2 s') w
    CROSS JOIN LATERAL unnest(pg_blocking_pids(w.pid)) b (pid)
    WHERE NOT EXISTS (SELECT FROM pg_stat_activity a JOIN public.tenant_role t ON t.role_name = a.usename WHERE a.pid = w.pid);
    FOR role_name, process_id, reason IN
        SELECT * FROM (
            SELECT t.role_name, a.pid, CASE
                WHEN a.state LIKE 'idle in transaction%' AND a.state_change < clock_timestamp() - patience THEN 'idle in a transaction'
                WHEN a.xact_start < clock_timestamp() - patience - make_interval(secs => t.statement_seconds)
                    THEN 'in a transaction for longer than its statements may take'
                WHEN crowded AND a.xact_start < clock_timestamp() - interval '1 s' THEN 'in a transaction while notifications pile up'
                WHEN a.pid = ANY (blocking) OR a.xact_start < clock_timestamp() - in_the_way THEN 'in the way of maintenance or a migration'
            END AS why
            FROM public.tenant_role t JOIN pg_stat_activity a ON a.usename = t.role_name AND a.leader_pid IS NULL
        ) s WHERE why IS NOT NULL
    LOOP
        BEGIN
            IF pg_terminate_backend(process_id) THEN
                RETURN NEXT;
            END IF;
        EXCEPTION WHEN insufficient_privilege THEN
            NULL;  -- `iot doctor` tells of it
        END;
    END LOOP;
END
$$;
COMMENT ON FUNCTION end_tenant_sessions(interval, interval) IS
    'Ends sessions of tenants'' logins that are in a transaction too long, whatever they SET: idle for as long as patience, or open for '
    'that much longer than a statement may take; a second while the server''s queue of notifications fills; longer than in_the_way, if '
    'given; or when somebody else has waited 2 s for their locks. Returns those it ended.';

-- The owner may see and end sessions of logins it is a member of; those made by earlier versions of `iot tenant grant` lack that.
DO $$
DECLARE
    login name;
BEGIN
    FOR login IN SELECT t.role_name FROM tenant_role t JOIN pg_roles r ON r.rolname = t.role_name WHERE NOT pg_has_role(r.oid, 'USAGE') LOOP
        BEGIN
            EXECUTE format('GRANT %I TO CURRENT_USER', login);
        EXCEPTION WHEN insufficient_privilege THEN
            RAISE WARNING '% may not end sessions of login % (%)', current_user, login, SQLERRM;
        END;
    END LOOP;
END
$$;

CREATE OR REPLACE VIEW tenant.measurement WITH (security_barrier) AS
SELECT m.time, (SELECT tenant.current_tenant()) AS tenant_id, s.project_id || '' AS project_id, s.device_id || '' AS device_id,
       s.metric || '' AS metric, m.value, m.value_int, m.value_text, s.unit || '' AS unit, m.flags
FROM public.series s
CROSS JOIN LATERAL (
    SELECT m.time,
           CASE WHEN m.series_id = s.series_id THEN m.value END AS value,
           CASE WHEN m.series_id = s.series_id THEN m.value_int END AS value_int,
           CASE WHEN m.series_id = s.series_id THEN m.value_text END AS value_text,
           CASE WHEN m.series_id = s.series_id THEN m.flags END AS flags
    FROM public.measurement m WHERE m.series_id = s.series_id ORDER BY m.time
) m
WHERE s.tenant_id = (SELECT tenant.current_tenant());
COMMENT ON VIEW tenant.measurement IS 'One row is one measurement of the tenant that asks.';

CREATE OR REPLACE VIEW tenant.latest WITH (security_barrier) AS
SELECT l.time, (SELECT tenant.current_tenant()) AS tenant_id, s.project_id || '' AS project_id, s.device_id || '' AS device_id,
       s.metric || '' AS metric, l.value, l.value_int, l.value_text, s.unit || '' AS unit, l.flags
FROM public.series s
CROSS JOIN LATERAL (
    SELECT CASE WHEN l.series_id = s.series_id THEN l.time END AS time,
           CASE WHEN l.series_id = s.series_id THEN l.value END AS value,
           CASE WHEN l.series_id = s.series_id THEN l.value_int END AS value_int,
           CASE WHEN l.series_id = s.series_id THEN l.value_text END AS value_text,
           CASE WHEN l.series_id = s.series_id THEN l.flags END AS flags
    FROM public.series_latest l WHERE l.series_id = s.series_id ORDER BY l.series_id
) l
WHERE s.tenant_id = (SELECT tenant.current_tenant());
COMMENT ON VIEW tenant.latest IS 'One row is the latest measurement of one series of the tenant that asks.';

CREATE OR REPLACE VIEW tenant.measurement_1h WITH (security_barrier) AS
SELECT r.bucket, (SELECT tenant.current_tenant()) AS tenant_id, s.project_id || '' AS project_id, s.device_id || '' AS device_id,
       s.metric || '' AS metric, r.value_count, r.numbers, r.value_min, r.value_max, r.value_sum, r.value_avg, r.value_first, r.value_last,
       s.unit || '' AS unit
FROM public.series s
CROSS JOIN LATERAL (
    SELECT r.bucket,
           CASE WHEN r.series_id = s.series_id THEN r.value_count END AS value_count,
           CASE WHEN r.series_id = s.series_id THEN r.numbers END AS numbers,
           CASE WHEN r.series_id = s.series_id THEN r.value_min END AS value_min,
           CASE WHEN r.series_id = s.series_id THEN r.value_max END AS value_max,
           CASE WHEN r.series_id = s.series_id THEN r.value_sum END AS value_sum,
           CASE WHEN r.series_id = s.series_id THEN r.value_avg END AS value_avg,
           CASE WHEN r.series_id = s.series_id THEN r.value_first END AS value_first,
           CASE WHEN r.series_id = s.series_id THEN r.value_last END AS value_last
    FROM public.measurement_1h r WHERE r.series_id = s.series_id ORDER BY r.bucket
) r
WHERE s.tenant_id = (SELECT tenant.current_tenant());
COMMENT ON VIEW tenant.measurement_1h IS
    'One row is one hour (UTC) of one series of the tenant that asks; columns as in public.measurement_1h.';

CREATE OR REPLACE VIEW tenant.measurement_1d WITH (security_barrier) AS
SELECT r.bucket, (SELECT tenant.current_tenant()) AS tenant_id, s.project_id || '' AS project_id, s.device_id || '' AS device_id,
       s.metric || '' AS metric, r.value_count, r.numbers, r.value_min, r.value_max, r.value_sum, r.value_avg, r.value_first, r.value_last,
       s.unit || '' AS unit
FROM public.series s
CROSS JOIN LATERAL (
    SELECT r.bucket,
           CASE WHEN r.series_id = s.series_id THEN r.value_count END AS value_count,
           CASE WHEN r.series_id = s.series_id THEN r.numbers END AS numbers,
           CASE WHEN r.series_id = s.series_id THEN r.value_min END AS value_min,
           CASE WHEN r.series_id = s.series_id THEN r.value_max END AS value_max,
           CASE WHEN r.series_id = s.series_id THEN r.value_sum END AS value_sum,
           CASE WHEN r.series_id = s.series_id THEN r.value_avg END AS value_avg,
           CASE WHEN r.series_id = s.series_id THEN r.value_first END AS value_first,
           CASE WHEN r.series_id = s.series_id THEN r.value_last END AS value_last
    FROM public.measurement_1d r WHERE r.series_id = s.series_id ORDER BY r.bucket
) r
WHERE s.tenant_id = (SELECT tenant.current_tenant());
COMMENT ON VIEW tenant.measurement_1d IS
    'One row is one day (UTC) of one series of the tenant that asks; columns as in public.measurement_1d.';

CREATE OR REPLACE VIEW tenant.message WITH (security_barrier) AS
SELECT m.received_at,
       s.topic || '' AS topic, (SELECT tenant.current_tenant()) AS tenant_id, s.project_id || '' AS project_id,
       s.device_id || '' AS device_id,
       CASE WHEN m.source_id = s.source_id THEN m.kafka_partition END AS kafka_partition,
       CASE WHEN m.source_id = s.source_id THEN m.kafka_offset END AS kafka_offset,
       CASE WHEN m.source_id = s.source_id THEN m.payload END AS payload,
       CASE WHEN m.source_id = s.source_id THEN m.duplicate_of END AS duplicate_of,
       CASE WHEN m.source_id = s.source_id THEN CASE m.time_source WHEN 1 THEN 'payload' ELSE 'receive' END END AS time_source,
       CASE WHEN m.source_id = s.source_id THEN (m.flags & 1) <> 0 END AS dup,
       CASE WHEN m.source_id = s.source_id THEN (m.flags & 2) <> 0 END AS retain,
       CASE WHEN m.source_id = s.source_id THEN ((m.flags >> 2) & 3)::smallint END AS qos,
       CASE WHEN m.source_id = s.source_id THEN m.log_generation END AS log_generation,
       CASE WHEN m.source_id = s.source_id THEN m.time_shift_us END AS time_shift_us
FROM public.message m
JOIN public.source s ON s.source_id = m.source_id
WHERE s.tenant_id = (SELECT tenant.current_tenant());
COMMENT ON VIEW tenant.message IS 'One row is one message of the tenant that asks.';

CREATE OR REPLACE VIEW tenant.quarantine WITH (security_barrier) AS
SELECT q.received_at, q.topic || '' AS topic, (SELECT tenant.current_tenant()) AS tenant_id, q.project_id || '' AS project_id,
       q.reason || '' AS reason, q.detail || '' AS detail, q.kafka_partition + 0 AS kafka_partition, q.kafka_offset + 0 AS kafka_offset,
       q.payload || ''::bytea AS payload, q.duplicate_of + 0 AS duplicate_of, q.log_generation + 0 AS log_generation
FROM public.quarantine q
WHERE q.tenant_id = (SELECT tenant.current_tenant());
COMMENT ON VIEW tenant.quarantine IS 'One row is one quarantined message whose topic names the tenant that asks.';

DO $$
BEGIN
    IF to_regclass('public.quality_result') IS NULL THEN
        RETURN;
    END IF;
    CREATE OR REPLACE VIEW tenant.quality WITH (security_barrier) AS
    SELECT r.evaluated_at, r.rule || '' AS rule, r.status || '' AS status, (SELECT tenant.current_tenant()) AS tenant_id,
           r.project_id || '' AS project_id, r.device_id || '' AS device_id, r.metric || '' AS metric, r.message || '' AS message,
           CASE WHEN r.incident_id = i.incident_id THEN r.value END AS value, CASE WHEN r.incident_id = i.incident_id
               THEN r.threshold END AS threshold,
           CASE WHEN r.incident_id = i.incident_id THEN r.window_from END AS window_from,
           CASE WHEN r.incident_id = i.incident_id THEN r.window_to END AS window_to, CASE WHEN r.incident_id = i.incident_id
               THEN r.example END AS example,
           r.kafka_partition + 0 AS kafka_partition, r.kafka_offset + 0 AS kafka_offset, r.incident_id + 0 AS incident_id,
           i.opened_at, i.closed_at, i.flaps
    FROM public.quality_result r
    CROSS JOIN LATERAL (
        SELECT i.incident_id, CASE WHEN i.incident_id = r.incident_id THEN i.opened_at END AS opened_at,
               CASE WHEN i.incident_id = r.incident_id THEN i.closed_at END AS closed_at,
               CASE WHEN i.incident_id = r.incident_id THEN i.flaps END AS flaps
        FROM public.quality_incident i WHERE i.incident_id = r.incident_id ORDER BY i.incident_id
    ) i
    WHERE r.tenant_id = (SELECT tenant.current_tenant());
    COMMENT ON VIEW tenant.quality IS
        'One row is one finding of one quality rule about the tenant that asks, with the incident it belongs to.';
END
$$;
