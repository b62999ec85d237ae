-- Exactly what each role needs; roles that do not exist are skipped. Applied again whenever any file of sql/ or the set of roles changed.
-- integration/test_grants.py holds the result against a list: iot_platform_tests/contract/grants.json.

-- Nothing is everybody's: logins that are none of the platform's neither connect nor make temporary objects, nor call our functions.
-- TimescaleDB's functions in schema public stay callable for those who may use the schema.
DO $$
DECLARE
    routine regprocedure;
BEGIN
    BEGIN
        EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
        REVOKE ALL ON SCHEMA public FROM PUBLIC;
        -- Queries here are short. Over many chunks the planner expects long ones, and compiles them: seconds for what takes milliseconds.
        EXECUTE format('ALTER DATABASE %I SET jit = off', current_database());
    EXCEPTION WHEN insufficient_privilege THEN
        RAISE WARNING '% is not the owner of database % and its schema public (%): PUBLIC keeps its rights there', current_user,
            current_database(), SQLERRM;
    END;
    FOR routine IN
        SELECT p.oid FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
        WHERE n.nspname IN ('public', 'tenant') AND pg_get_userbyid(p.proowner) = current_user
          AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
    LOOP
        EXECUTE format('REVOKE EXECUTE ON ROUTINE %s FROM PUBLIC', routine);
    END LOOP;
    -- Those that act with the caller's rights are the writer's and the reader's; those that act as the owner are granted one by one below.
    FOR routine IN
        SELECT p.oid FROM pg_proc p WHERE p.pronamespace = 'public'::regnamespace AND NOT p.prosecdef
            AND pg_get_userbyid(p.proowner) = current_user
          AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
    LOOP
        IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'iot_writer') THEN
            EXECUTE format('GRANT EXECUTE ON ROUTINE %s TO iot_writer', routine);
        END IF;
        IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'iot_reader') THEN
            EXECUTE format('GRANT EXECUTE ON ROUTINE %s TO iot_reader', routine);
        END IF;
    END LOOP;
END
$$;

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'iot_writer') THEN
        GRANT USAGE ON SCHEMA public TO iot_writer;
        GRANT SELECT, INSERT ON message, measurement, quarantine, ledger, source, series, mqtt_connection, dead_letter TO iot_writer;
        -- Where a project wants the last value of a conflict. Only the values change; but TimescaleDB takes no rights on single columns of
        -- a table that can be compressed.
        GRANT UPDATE ON measurement TO iot_writer;
        GRANT SELECT, INSERT, UPDATE ON project, mqtt_connection_partition, series_latest, kafka_offset, accounting_1h TO iot_writer;
        GRANT SELECT, INSERT, UPDATE ON mqtt_connection_report, ingest_report, kafka_watermark, import_file TO iot_writer;
        -- A replay moves what decodes now out of quarantine, and brings the words about the rest up to date; it never changes the record.
        GRANT DELETE, UPDATE (reason, detail, tenant_id, project_id) ON quarantine TO iot_writer;
        GRANT SELECT ON measurement_named, measurement_by_series, message_named, quarantine_named, latest_named, schema_migration TO iot_writer;
        -- Sparkplug B: births that ended long ago go when their edge node is born again.
        GRANT SELECT, INSERT, UPDATE, DELETE ON sparkplug_birth, sparkplug_node TO iot_writer;
        GRANT SELECT ON audit_offset, audit_sequence, audit_hour, audit_daemon TO iot_writer;
        -- Quality: drain and replay note where to look, evaluations do the rest.
        GRANT SELECT, INSERT, UPDATE, DELETE ON quality_rule, quality_watermark, quality_feed, quality_note, quality_late, quality_cadence,
            quality_constant, quality_recheck, quality_pause, quality_gap TO iot_writer;
        GRANT SELECT, INSERT, UPDATE ON quality_incident TO iot_writer;
        GRANT SELECT, INSERT ON quality_result TO iot_writer;
        -- What users of the console ask for, and what people say of series.
        GRANT SELECT, UPDATE ON console_action TO iot_writer;
        GRANT SELECT, INSERT, UPDATE ON audit_result TO iot_writer;
        GRANT SELECT, INSERT, UPDATE, DELETE ON series_info TO iot_writer;
        GRANT SELECT, INSERT ON series_info_change TO iot_writer;
        GRANT SELECT ON quality_named, quality_open TO iot_writer;
        -- Rollups: the drain reads how far they are stored and notes what it changes below; the stored rows change by functions only.
        GRANT SELECT ON rollup_state, retention_mark, measurement_1h, measurement_1d, measurement_1h_named, measurement_1d_named
            TO iot_writer;
        GRANT SELECT, INSERT ON rollup_change TO iot_writer;
        -- Retention: policies are plain rows; what goes is decided by the functions, which check policies and reasons against it
        -- themselves.
        GRANT SELECT, INSERT, UPDATE, DELETE ON retention_policy, project_option TO iot_writer;
        GRANT SELECT, INSERT, UPDATE (received_to, ended_at, ended_by) ON decode_correction TO iot_writer;
        GRANT SELECT ON retention_removed, retention_sum, removed_record, mqtt_connection_removed, ledger_removed, tenant_deletion,
            tenant_deletion_series, tenant_deletion_source, tenant_deletion_offset, catalog_generation, tenant_leaving TO iot_writer;
        GRANT EXECUTE ON FUNCTION retention_plan(timestamptz, boolean), retention_remove_chunk(text, regclass, timestamptz),
            retention_remove_rows(text, text, text, timestamptz, timestamptz, integer, timestamptz), retention_forget(integer),
            catalog_make_way(bytea[], bytea[]) TO iot_writer;
        -- Tenants' sessions that stay in a transaction too long.
        GRANT EXECUTE ON FUNCTION end_tenant_sessions(interval, interval) TO iot_writer;
        -- Compression: the policies, but not their columns of SQL, which the owner executes; and one function that acts on them.
        GRANT SELECT, UPDATE (older_than, late_share, enabled, changed_at, changed_by) ON compression_policy TO iot_writer;
        GRANT SELECT ON compressed_chunk TO iot_writer;
        GRANT SELECT, INSERT ON backup_drill TO iot_writer;
        GRANT SELECT ON database_backup TO iot_writer;
        GRANT EXECUTE ON FUNCTION compression_prepare(text), compression_apply(text) TO iot_writer;
        GRANT EXECUTE ON FUNCTION rollup_refresh(integer), rollup_advance(integer, timestamptz), rollup_lower(timestamptz),
            rollup_rebuild(timestamptz, timestamptz, integer, integer, text) TO iot_writer;
        -- Second stores that follow the ledger.
        GRANT SELECT, INSERT, UPDATE, DELETE ON sink, sink_offset, sink_range, sink_replay, sink_series, sink_refused, sink_backfill
            TO iot_writer;
        GRANT SELECT ON sink_progress TO iot_writer;
        GRANT USAGE, CREATE ON SCHEMA dagster TO iot_writer;
        EXECUTE format('GRANT CONNECT, TEMPORARY ON DATABASE %I TO iot_writer', current_database());
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'iot_reader') THEN
        GRANT USAGE ON SCHEMA public TO iot_reader;
        GRANT SELECT ON measurement_named, measurement_by_series, message_named, quarantine_named, latest_named TO iot_reader;
        GRANT SELECT ON audit_offset, audit_sequence, audit_hour, audit_daemon TO iot_reader;
        GRANT SELECT ON message, measurement, quarantine, ledger, source, series, mqtt_connection, project, mqtt_connection_partition,
            series_latest, kafka_offset, kafka_watermark, accounting_1h, dead_letter, mqtt_connection_report, ingest_report,
            schema_migration, project_option, decode_correction, sparkplug_birth, sparkplug_node TO iot_reader;
        GRANT SELECT ON series_info, series_info_change, audit_result, import_file TO iot_reader;
        -- Quality
        GRANT SELECT ON quality_named, quality_open, quality_rule, quality_watermark, quality_result, quality_incident, quality_cadence
            TO iot_reader;
        GRANT SELECT ON rollup_state, rollup_change, retention_mark, measurement_1h, measurement_1d, measurement_1h_named,
            measurement_1d_named
            TO iot_reader;
        GRANT SELECT ON retention_policy, retention_removed, retention_sum, removed_record, mqtt_connection_removed, ledger_removed,
            tenant_deletion,
            tenant_deletion_series, tenant_deletion_source, tenant_deletion_offset, catalog_generation, tenant_leaving TO iot_reader;
        GRANT SELECT ON sink, sink_offset, sink_range, sink_series, sink_refused, sink_backfill, sink_progress TO iot_reader;
        -- Compression and backups
        GRANT SELECT ON compression_policy, compressed_chunk, backup_drill, database_backup TO iot_reader;
        EXECUTE format('GRANT CONNECT ON DATABASE %I TO iot_reader', current_database());
        -- Dashboards
        GRANT SELECT ON project_named, series_named, source_named, batch_named, traffic_1h, partition_progress,
            quality_incident_named, quality_progress TO iot_reader;
    END IF;
    -- The console's process: its own tables, no telemetry. What a tenant has it reads as that tenant's login.
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'iot_console') THEN
        GRANT USAGE ON SCHEMA public TO iot_console;
        GRANT SELECT ON console_tenant TO iot_console;
        GRANT SELECT, INSERT, UPDATE ON console_user TO iot_console;
        GRANT SELECT, INSERT, UPDATE, DELETE ON console_grant, console_session, api_key, console_unknown_name
            TO iot_console;
        GRANT SELECT, INSERT ON console_action TO iot_console;
        GRANT SELECT ON decode_correction TO iot_console;  -- rules, no telemetry
        GRANT SELECT ON kafka_offset, kafka_watermark, ledger TO iot_console;  -- how far the platform has committed
        EXECUTE format('GRANT CONNECT ON DATABASE %I TO iot_console', current_database());
    END IF;
    -- Tenants' logins (repeatable/tenants.sql): their views, and nothing else.
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'iot_tenant') THEN
        GRANT USAGE ON SCHEMA tenant TO iot_tenant;
        GRANT SELECT ON ALL TABLES IN SCHEMA tenant TO iot_tenant;
        GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA tenant TO iot_tenant;
        EXECUTE format('GRANT CONNECT ON DATABASE %I TO iot_tenant', current_database());
    END IF;
END
$$;
