-- What a tenant's login may read. Rules, each tested in integration/test_tenant_isolation.py:
-- * Who asks is session_user, which neither SET ROLE nor anything else short of a superuser changes.
-- * security_barrier: only leakproof conditions (=, <, >= … on names, times, numbers, texts) reach the tables, others see own rows only.
-- * Conditions that reach the tables must not meet rows of others either: EXPLAIN ANALYZE tells how many rows a filter removed. So names
--   are expressions with indexes of their own (0002), and measurements come by LATERAL … ORDER BY, which PostgreSQL can only plan as one
--   index scan for each own series.
-- * CASE WHEN a = b where a = b already holds: a condition on such a column is applied to joined, own rows, and finds no statistics.
-- * No series_id: a condition on it would reach the measurements of others.
-- Columns may be added at the end only: CREATE OR REPLACE VIEW allows nothing else.
CREATE OR REPLACE VIEW tenant_login AS
SELECT tenant_id, role_name, statement_seconds, false AS console FROM tenant_role
UNION ALL
SELECT tenant_id, role_name, statement_seconds, true FROM console_tenant;
COMMENT ON VIEW tenant_login IS
    'One row is one login that reads one tenant: its own, or the one through which the console reads it. No login is in it twice.';

CREATE OR REPLACE FUNCTION tenant.current_tenant() RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT r.tenant_id FROM public.tenant_login r WHERE r.role_name OPERATOR(pg_catalog.=) session_user
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
    WHERE NOT EXISTS (SELECT FROM pg_stat_activity a JOIN public.tenant_login t ON t.role_name = a.usename WHERE a.pid = w.pid);
    FOR role_name, process_id, reason IN
        SELECT * FROM (
            SELECT t.role_name, a.pid, CASE
                WHEN a.state LIKE 'idle in transaction%' AND a.state_change < clock_timestamp() - patience THEN 'idle in a transaction'
                WHEN a.xact_start < clock_timestamp() - patience - make_interval(secs => t.statement_seconds)
                    THEN 'in a transaction for longer than its statements may take'
                WHEN crowded AND a.xact_start < clock_timestamp() - interval '1 s' THEN 'in a transaction while notifications pile up'
                WHEN a.pid = ANY (blocking) OR a.xact_start < clock_timestamp() - in_the_way THEN 'in the way of maintenance or a migration'
            END AS why
            FROM public.tenant_login t JOIN pg_stat_activity a ON a.usename = t.role_name AND a.leader_pid IS NULL
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
    FOR login IN SELECT t.role_name FROM tenant_login t JOIN pg_roles r ON r.rolname = t.role_name WHERE NOT pg_has_role(r.oid, 'USAGE') LOOP
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

-- For the console (iot_platform/api): what the views above do not have.
CREATE OR REPLACE VIEW tenant.project WITH (security_barrier) AS
SELECT p.project_id || '' AS project_id, p.series_count + 0 AS series_count, p.first_seen_at
FROM public.project p
WHERE p.tenant_id = (SELECT tenant.current_tenant());
COMMENT ON VIEW tenant.project IS 'One row is one project of the tenant that asks.';

CREATE OR REPLACE VIEW tenant.series WITH (security_barrier) AS
SELECT s.project_id || '' AS project_id, s.device_id || '' AS device_id, s.metric || '' AS metric,
       coalesce(nullif(i.unit, ''), s.unit, '') AS unit, coalesce(i.display_name, '') AS display_name,
       coalesce(i.description, '') AS description, i.valid_min, i.valid_max
FROM public.series s
LEFT JOIN LATERAL (
    SELECT CASE WHEN i.series_id = s.series_id THEN i.unit END AS unit,
           CASE WHEN i.series_id = s.series_id THEN i.display_name END AS display_name,
           CASE WHEN i.series_id = s.series_id THEN i.description END AS description,
           CASE WHEN i.series_id = s.series_id THEN i.valid_min END AS valid_min,
           CASE WHEN i.series_id = s.series_id THEN i.valid_max END AS valid_max
    FROM public.series_info i WHERE i.series_id = s.series_id ORDER BY i.series_id
) i ON true
WHERE s.tenant_id = (SELECT tenant.current_tenant());
COMMENT ON VIEW tenant.series IS
    'One row is one series of the tenant that asks, with what people say of it; unit: theirs, else the one that the payload named.';

CREATE OR REPLACE VIEW tenant.series_info_change WITH (security_barrier) AS
SELECT s.project_id || '' AS project_id, s.device_id || '' AS device_id, s.metric || '' AS metric, c.change_id, c.changed_at, c.changed_by,
       c.display_name, c.unit, c.description, c.valid_min, c.valid_max
FROM public.series s
CROSS JOIN LATERAL (
    SELECT CASE WHEN c.series_id = s.series_id THEN c.change_id END AS change_id,
           CASE WHEN c.series_id = s.series_id THEN c.changed_at END AS changed_at,
           CASE WHEN c.series_id = s.series_id THEN c.changed_by END AS changed_by,
           CASE WHEN c.series_id = s.series_id THEN c.display_name END AS display_name,
           CASE WHEN c.series_id = s.series_id THEN c.unit END AS unit,
           CASE WHEN c.series_id = s.series_id THEN c.description END AS description,
           CASE WHEN c.series_id = s.series_id THEN c.valid_min END AS valid_min,
           CASE WHEN c.series_id = s.series_id THEN c.valid_max END AS valid_max
    FROM public.series_info_change c WHERE c.series_id = s.series_id ORDER BY c.change_id
) c
WHERE s.tenant_id = (SELECT tenant.current_tenant());
COMMENT ON VIEW tenant.series_info_change IS 'One row is one change of what people say of a series of the tenant that asks.';

CREATE OR REPLACE VIEW tenant.incident WITH (security_barrier) AS
SELECT i.incident_id + 0 AS incident_id, i.rule || '' AS rule, i.severity || '' AS severity, i.project_id || '' AS project_id,
       i.device_id || '' AS device_id, i.metric || '' AS metric, i.opened_at, i.last_seen_at, i.closed_at, i.message || '' AS message,
       i.flaps + 0 AS flaps, i.silenced_until, i.silence_reason || '' AS silence_reason, i.silenced_by || '' AS silenced_by,
       i.acknowledged_at, i.acknowledged_by || '' AS acknowledged_by, i.kafka_partition + 0 AS kafka_partition,
       i.kafka_offset + 0 AS kafka_offset
FROM public.quality_incident i
WHERE i.tenant_id = (SELECT tenant.current_tenant());
COMMENT ON VIEW tenant.incident IS 'One row is one incident of the tenant that asks.';

CREATE OR REPLACE VIEW tenant.quality_rule WITH (security_barrier) AS
SELECT r.rule || '' AS rule, r.tenant_id <> '' AS own, r.project_id || '' AS project_id, r.metric || '' AS metric,
       r.enabled AND true AS enabled, r.severity || '' AS severity, r.threshold + 0 AS threshold, r.window_seconds + 0 AS window_seconds,
       r.clear_seconds + 0 AS clear_seconds, r.hold_seconds + 0 AS hold_seconds, r.parameters || '{}' AS parameters,
       r.description || '' AS description, r.updated_at
FROM public.quality_rule r
WHERE r.tenant_id IN ('', (SELECT tenant.current_tenant()));
COMMENT ON VIEW tenant.quality_rule IS
    'One row is the default of one quality rule, or what the tenant that asks, a project or metric of it has instead (own).';

CREATE OR REPLACE VIEW tenant.accounting_1h WITH (security_barrier) AS
SELECT a.hour, a.project_id || '' AS project_id, a.kafka_partition + 0 AS kafka_partition, a.messages + 0 AS messages,
       a.duplicates + 0 AS duplicates, a.quarantined + 0 AS quarantined, a.measurements + 0 AS measurements,
       a.measurement_duplicates + 0 AS measurement_duplicates, a.measurement_conflicts + 0 AS measurement_conflicts,
       a.conflict_example || '{}' AS conflict_example, a.last_received_at, a.last_committed_at
FROM public.accounting_1h a
WHERE a.tenant_id = (SELECT tenant.current_tenant());
COMMENT ON VIEW tenant.accounting_1h IS
    'One row sums the records of one project of the tenant that asks, of one Kafka partition received in one hour (UTC).';

-- How far the platform is with everybody's messages: it names nobody, and PostgreSQL's catalogs tell a tenant as much.
CREATE OR REPLACE FUNCTION tenant.progress() RETURNS TABLE (lag bigint, seen_at timestamptz, spooled bigint, in_flight bigint,
    reported_at timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT w.lag, w.seen_at, r.spooled, r.in_flight, r.reported_at
    FROM (
        SELECT sum(greatest(w.high - coalesce(k.next_offset, 0), 0))::bigint AS lag, min(w.seen_at) AS seen_at
        FROM public.kafka_watermark w LEFT JOIN public.kafka_offset k USING (topic, kafka_partition)
    ) w CROSS JOIN (
        SELECT sum(spooled)::bigint AS spooled, sum(in_flight)::bigint AS in_flight, min(reported_at) AS reported_at
        FROM public.ingest_report
    ) r
$$;
COMMENT ON FUNCTION tenant.progress() IS
    'Records in Kafka that the database has not taken, of all tenants together, as last seen; and what the ingest daemons last said that '
    'they hold: in the spool, and not yet acknowledged.';

CREATE OR REPLACE FUNCTION tenant.runs(since timestamptz) RETURNS TABLE (run_id text, started_at timestamptz, ended_at timestamptz,
    batches bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT l.run_id, min(l.committed_at), max(l.committed_at), count(*) FROM public.ledger l
    WHERE l.committed_at >= greatest(since, now() - interval '3 hours') AND l.kind = 'drain'
    GROUP BY l.run_id ORDER BY 2 DESC LIMIT 20
$$;
COMMENT ON FUNCTION tenant.runs(timestamptz) IS
    'The drain''s last runs (3 hours at most): first and last commit, and how many; everybody''s messages are in them.';

-- What became of one record. Only the tenant that it belongs to is told anything.
CREATE OR REPLACE FUNCTION tenant.record(at_partition integer, at_offset bigint) RETURNS TABLE (received_at timestamptz, topic text,
    project_id text, device_id text, reason text, detail text, duplicate_of bigint, payload bytea, connection_number bigint,
    sequence bigint, committed_at timestamptz, run_id text, kind text, from_offset bigint, to_offset bigint, log_generation integer)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH batch AS MATERIALIZED (
        SELECT l.* FROM public.ledger l
        WHERE l.kafka_partition = at_partition AND l.from_offset <= at_offset AND l.to_offset > at_offset AND l.kind IN ('drain', 'replay')
        ORDER BY l.from_offset DESC, l.committed_at DESC LIMIT 10
    )
    SELECT r.received_at, r.topic, r.project_id, r.device_id, r.reason, r.detail, r.duplicate_of, r.payload, c.connection_number, r.sequence,
           b.committed_at, b.run_id, b.kind, b.from_offset, b.to_offset, b.log_generation
    FROM batch b CROSS JOIN LATERAL (
        SELECT m.received_at, s.topic, s.project_id, s.device_id, ''::text AS reason, ''::text AS detail, m.duplicate_of, m.payload,
               m.connection_id, m.sequence
        FROM public.message m JOIN public.source s ON s.source_id = m.source_id
        WHERE m.received_at BETWEEN b.first_received_at AND b.last_received_at AND m.kafka_partition = at_partition
          AND m.kafka_offset = at_offset AND m.log_generation = b.log_generation AND s.tenant_id = (SELECT tenant.current_tenant())
        UNION ALL
        SELECT q.received_at, q.topic, q.project_id, '', q.reason, q.detail, q.duplicate_of, q.payload, q.connection_id, q.sequence
        FROM public.quarantine q
        WHERE q.received_at BETWEEN b.first_received_at AND b.last_received_at AND q.kafka_partition = at_partition
          AND q.kafka_offset = at_offset AND q.log_generation = b.log_generation AND q.tenant_id = (SELECT tenant.current_tenant())
    ) r LEFT JOIN public.mqtt_connection c ON c.connection_id = r.connection_id
    ORDER BY b.log_generation DESC, b.committed_at
$$;
COMMENT ON FUNCTION tenant.record(integer, bigint) IS
    'One row is one batch (drain or replay) that holds the record of this Kafka partition and offset, with the record: as a message, or '
    'with a reason as one in quarantine. Nothing unless the record is the asking tenant''s.';

CREATE OR REPLACE FUNCTION tenant.audit() RETURNS TABLE (proof text, audited_at timestamptz, since timestamptz, differences bigint,
    places text[], texts text[])
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT r.proof, r.audited_at, r.since, r.differences, f.places, f.texts FROM public.audit_result r CROSS JOIN LATERAL (
        SELECT coalesce(array_agg(e ->> 'place'), '{}') AS places, coalesce(array_agg(e ->> 'text'), '{}') AS texts
        FROM jsonb_array_elements(r.findings) e WHERE e ->> 'kind' = 'offsets'
    ) f
$$;
COMMENT ON FUNCTION tenant.audit() IS
    'What the audit last found. Differences of offsets with their places, which name partitions; of the others, which may name tenants and '
    'topics, only how many there are.';

-- A page of a list is no business of the views: PostgreSQL plans a security_barrier view as a whole, without the LIMIT around it, and would
-- sort 100,000 series, and join as many latest values, for each 200. Here it reads 200 along an index.
CREATE OR REPLACE FUNCTION tenant.series_page(in_project text, in_device text, in_metric text, search text, after_project text,
    after_device text, after_metric text, page integer) RETURNS TABLE (project_id text, device_id text, metric text, unit text,
    display_name text, description text, valid_min double precision, valid_max double precision, latest_time timestamptz,
    value double precision, value_int bigint, value_text text, flags smallint)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    mine CONSTANT text := tenant.current_tenant();
    wanted CONSTANT text := lower(search);
BEGIN
    RETURN QUERY
    SELECT s.project_id, s.device_id, s.metric, coalesce(nullif(i.unit, ''), s.unit, ''), coalesce(i.display_name, ''),
           coalesce(i.description, ''), i.valid_min, i.valid_max, l.time, l.value, l.value_int, l.value_text, l.flags
    FROM (
        SELECT s.series_id, s.project_id, s.device_id, s.metric, s.unit FROM public.series s
        WHERE s.tenant_id = mine AND (in_project IS NULL OR s.project_id || '' = in_project)
          AND (in_device IS NULL OR s.device_id || '' = in_device) AND (in_metric IS NULL OR s.metric || '' = in_metric)
          AND (after_project IS NULL OR (s.project_id || '', s.device_id || '') >= (after_project, after_device)
               AND (s.project_id || '', s.device_id || '', s.metric) > (after_project, after_device, after_metric))
          AND (wanted IS NULL OR position(wanted IN lower(s.device_id)) > 0 OR position(wanted IN lower(s.metric)) > 0
               OR EXISTS (SELECT FROM public.series_info d WHERE d.series_id = s.series_id AND position(wanted IN lower(d.display_name)) > 0))
        ORDER BY s.project_id || '', s.device_id || '', s.metric LIMIT least(page, 1001)
    ) s
    LEFT JOIN public.series_info i ON i.series_id = s.series_id LEFT JOIN public.series_latest l ON l.series_id = s.series_id
    ORDER BY s.project_id, s.device_id, s.metric;
END
$$;
COMMENT ON FUNCTION tenant.series_page(text, text, text, text, text, text, text, integer) IS
    'A page of the asking tenant''s series with their latest values, in the order of project, device and metric, after the one named: '
    'those of a project, device and metric, and those whose device, metric or display name holds a text (null: all).';
