-- Exactly what each role needs; roles that do not exist are skipped (and granted to once they exist: this file is applied again then).
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'iot_writer') THEN
        GRANT USAGE ON SCHEMA public TO iot_writer;
        GRANT SELECT, INSERT ON message, measurement, quarantine, ledger, source, series, mqtt_connection, dead_letter TO iot_writer;
        GRANT SELECT, INSERT, UPDATE ON project, mqtt_connection_partition, series_latest, kafka_offset, accounting_1h TO iot_writer;
        GRANT SELECT, INSERT, UPDATE ON mqtt_connection_report, ingest_report TO iot_writer;
        -- A replay moves what decodes now out of quarantine, and brings the words about the rest up to date; it never changes the record.
        GRANT DELETE, UPDATE (reason, detail, tenant_id, project_id) ON quarantine TO iot_writer;
        GRANT SELECT ON measurement_named, message_named, quarantine_named, latest_named, schema_migration TO iot_writer;
        GRANT SELECT ON audit_offset, audit_sequence, audit_hour, audit_daemon TO iot_writer;
        -- Rollups: the drain reads how far they are stored and notes what it changes below; the stored rows change by functions only.
        GRANT SELECT ON rollup_state, retention_mark, measurement_1h, measurement_1d, measurement_1h_named, measurement_1d_named TO iot_writer;
        GRANT SELECT, INSERT ON rollup_change TO iot_writer;
        -- Compression: the policies, but not their columns of SQL, which the owner executes; and one function that acts on them.
        GRANT SELECT, UPDATE (older_than, late_share, enabled, changed_at, changed_by) ON compression_policy TO iot_writer;
        GRANT SELECT ON compressed_chunk TO iot_writer;
        GRANT EXECUTE ON FUNCTION compression_apply(text) TO iot_writer;
        GRANT EXECUTE ON FUNCTION rollup_refresh(integer), rollup_advance(integer, timestamptz),
            rollup_rebuild(timestamptz, timestamptz, integer, integer, text) TO iot_writer;
        GRANT USAGE, CREATE ON SCHEMA dagster TO iot_writer;
        EXECUTE format('GRANT CONNECT, TEMPORARY ON DATABASE %I TO iot_writer', current_database());
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'iot_reader') THEN
        GRANT USAGE ON SCHEMA public TO iot_reader;
        GRANT SELECT ON measurement_named, message_named, quarantine_named, latest_named TO iot_reader;
        GRANT SELECT ON audit_offset, audit_sequence, audit_hour, audit_daemon TO iot_reader;
        GRANT SELECT ON message, measurement, quarantine, ledger, source, series, mqtt_connection, project, mqtt_connection_partition,
            series_latest, kafka_offset, accounting_1h, dead_letter, mqtt_connection_report, ingest_report, schema_migration TO iot_reader;
        GRANT SELECT ON rollup_state, rollup_change, retention_mark, measurement_1h, measurement_1d, measurement_1h_named, measurement_1d_named
            TO iot_reader;
        -- Compression
        GRANT SELECT ON compression_policy, compressed_chunk TO iot_reader;
        EXECUTE format('GRANT CONNECT ON DATABASE %I TO iot_reader', current_database());
    END IF;
END
$$;
