-- Brings a database that the first chain of migrations made (first_chain.sha256) to where migrations/ up to 0013 brings an empty one.
-- `iot migrate` runs it instead of these files, in one transaction with the rows of schema_migration; then come the files after 0013, and
-- repeatable/.

-- Everything of repeatable/ goes, so that nothing of an earlier release is left; what somebody else built on one of these views stops us.
DO $$
DECLARE
    name text;
    routine regprocedure;
BEGIN
    FOREACH name IN ARRAY ARRAY[
        'tenant.latest', 'tenant.measurement', 'tenant.measurement_1d', 'tenant.measurement_1h', 'tenant.message', 'tenant.quality',
        'tenant.quarantine', 'audit_daemon', 'audit_hour', 'audit_offset', 'audit_sequence', 'batch_named', 'latest_named',
        'measurement_named', 'message_named', 'partition_progress', 'project_named', 'quality_incident_named', 'quality_named',
        'quality_open', 'quality_progress', 'quarantine_named', 'series_named', 'source_named', 'tenant_leaving', 'traffic_1h',
        'measurement_1d_named', 'measurement_1h_named', 'measurement_1d', 'measurement_1h'
    ] LOOP
        -- The last two are continuous aggregates where there are no stored tables: they stay.
        IF name NOT IN ('measurement_1d', 'measurement_1h') OR to_regclass('public.measurement_1h_stored') IS NOT NULL THEN
            EXECUTE format('DROP VIEW IF EXISTS %s', name);
        END IF;
    END LOOP;
    FOR routine IN
        SELECT p.oid FROM pg_proc p
        WHERE p.pronamespace IN ('public'::regnamespace, 'tenant'::regnamespace) AND p.proname = ANY (ARRAY[
            'age_text', 'audit_horizon', 'audit_hours', 'audit_measurements', 'audit_offsets', 'audit_partition',
            'audit_ranges', 'audit_rows', 'audit_sequences', 'audit_span', 'audit_text', 'catalog_make_way',
            'compression_apply', 'compression_chunks', 'compression_enable', 'compression_prepare', 'current_tenant',
            'day_before', 'disk_chunks', 'end_tenant_sessions', 'lock_key', 'quality_habit', 'quality_pause_seconds',
            'quality_setting', 'quality_silence', 'record_place', 'retention_add_measurements', 'retention_begin',
            'retention_catch_up', 'retention_chunks', 'retention_cutoff', 'retention_deletable', 'retention_fence',
            'retention_filter', 'retention_forget', 'retention_mark_of', 'retention_note_records', 'retention_plan',
            'retention_problems', 'retention_raise_mark', 'retention_refusals', 'retention_remove_chunk',
            'retention_remove_rows', 'retention_still_there', 'retention_tables', 'retention_uneven', 'retention_unstored',
            'retention_write_down', 'rollup_advance', 'rollup_compute', 'rollup_days', 'rollup_hours', 'rollup_lower',
            'rollup_marks', 'rollup_next', 'rollup_rebuild', 'rollup_refresh', 'rollup_storage', 'tenant_deletion_by_name',
            'tenant_deletion_count', 'tenant_deletion_cut', 'tenant_deletion_dead_letters', 'tenant_deletion_finish',
            'tenant_deletion_names', 'tenant_deletion_prepare', 'tenant_deletion_relation', 'tenant_deletion_remove',
            'tenant_deletion_small', 'tenant_deletion_tables', 'time_bucket', 'timescale_edition'])
          AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
    LOOP
        EXECUTE format('DROP FUNCTION %s', routine);
    END LOOP;
END
$$;

-- quality_pause took its place.
ALTER TABLE quality_cadence DROP COLUMN pause_seconds;

-- What the simulator remembers is in a schema of its own, which it makes when it is used (simulation/history.sql).
DO $$
BEGIN
    IF EXISTS (SELECT FROM simulated_history) THEN
        CREATE SCHEMA simulation;
        COMMENT ON SCHEMA simulation IS 'What `iot simulate --history` remembers; nothing of the platform reads it.';
        ALTER TABLE simulated_history SET SCHEMA simulation;
        ALTER TABLE simulation.simulated_history RENAME TO history;
        ALTER INDEX simulation.simulated_history_pkey RENAME TO history_pkey;
        IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'iot_writer') THEN
            GRANT USAGE ON SCHEMA simulation TO iot_writer;
        END IF;
        IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'iot_reader') THEN
            GRANT USAGE ON SCHEMA simulation TO iot_reader;
        END IF;
    ELSE
        DROP TABLE simulated_history;
    END IF;
END
$$;

-- Nobody should have to write sum(sum).
DO $$
DECLARE
    rollup text;
    name text;
BEGIN
    FOREACH rollup IN ARRAY ARRAY['measurement_1h', 'measurement_1d'] LOOP
        FOREACH name IN ARRAY ARRAY['count', 'min', 'max', 'sum', 'avg', 'first', 'last'] LOOP
            IF to_regclass('public.measurement_1h_stored') IS NOT NULL THEN
                EXECUTE format('ALTER TABLE %I RENAME COLUMN %I TO %I', rollup || '_stored', name, 'value_' || name);
            ELSE
                EXECUTE format('ALTER MATERIALIZED VIEW %I RENAME COLUMN %I TO %I', rollup, name, 'value_' || name);
            END IF;
        END LOOP;
    END LOOP;
END
$$;
