-- Compression of old chunks, and what the disk holds. The same functions in both editions; where there is no compression they say so.

CREATE OR REPLACE FUNCTION compression_chunks() RETURNS TABLE (
    table_name text, chunk_name text, range_start timestamptz, range_end timestamptz, compressed boolean, bytes bigint, late_bytes bigint,
    due text)
LANGUAGE sql STABLE SET jit = off AS $$
    SELECT p.table_name, format('%I.%I', c.chunk_schema, c.chunk_name), c.range_start, c.range_end, c.is_compressed,
           coalesce(pg_total_relation_size(r.oid), 0) + s.packed, s.late,
           CASE WHEN NOT p.enabled OR c.range_end > now() - p.older_than THEN NULL
                WHEN NOT c.is_compressed THEN 'compress'
                WHEN s.late > p.late_share * s.packed THEN 'recompress' END
    FROM compression_policy p
    JOIN timescaledb_information.chunks c ON c.hypertable_schema = 'public' AND c.hypertable_name = p.table_name
    JOIN pg_class r ON r.oid = to_regclass(format('%I.%I', c.chunk_schema, c.chunk_name))
    LEFT JOIN _timescaledb_catalog.compression_settings z ON z.relid = r.oid
    CROSS JOIN LATERAL (
        SELECT CASE WHEN c.is_compressed THEN coalesce(pg_total_relation_size(z.compress_relid), 0) ELSE 0 END AS packed,
               CASE WHEN c.is_compressed THEN coalesce(pg_relation_size(r.oid), 0) + coalesce(pg_relation_size(nullif(r.reltoastrelid, 0)),
                   0) ELSE 0 END AS late
    ) s
$$;
COMMENT ON FUNCTION compression_chunks() IS
    'One row for each chunk of a table with a compression policy: its bytes (all of them, and of rows that came after its compression), '
    'and what is due: compress, recompress or nothing (null).';

CREATE OR REPLACE FUNCTION compression_enable(name text, chunk text DEFAULT NULL) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    wanted record;
    present record;
    sparse boolean := false;
BEGIN
    IF timescale_edition() <> 'community' THEN
        RETURN;
    END IF;
    SELECT p.segment_by, p.order_by, p.segment_rows INTO STRICT wanted FROM compression_policy p WHERE p.table_name = name;
    IF chunk IS NOT NULL THEN
        EXECUTE format('SELECT count(*) < %s * count(DISTINCT (%s)) FROM %s', wanted.segment_rows, wanted.segment_by, chunk::regclass)
            INTO sparse;
    END IF;
    IF sparse THEN
        wanted.order_by := wanted.segment_by || ', ' || wanted.order_by;
        wanted.segment_by := '';
    END IF;
    SELECT coalesce(string_agg(c.attname, ', ' ORDER BY c.segmentby_column_index) FILTER (WHERE c.segmentby_column_index IS NOT NULL),
        '') AS segment_by,
           string_agg(c.attname, ', ' ORDER BY c.orderby_column_index) FILTER (WHERE c.orderby_column_index IS NOT NULL) || ', ' AS order_by
    INTO present FROM timescaledb_information.compression_settings c WHERE c.hypertable_schema = 'public' AND c.hypertable_name = name;
    IF present.segment_by IS DISTINCT FROM wanted.segment_by OR NOT starts_with(coalesce(present.order_by, ''), wanted.order_by || ', ')
        THEN
        EXECUTE format('ALTER TABLE public.%I SET (timescaledb.compress, timescaledb.compress_segmentby = %L,'
            ' timescaledb.compress_orderby = %L)',
            name, wanted.segment_by, wanted.order_by);
    END IF;
END
$$;
COMMENT ON FUNCTION compression_enable(text, text) IS
    'Sets a table with a policy up for the compression of its chunks, or of this one: by segments if it has enough rows for each. Does '
    'nothing in the Apache edition.';
REVOKE EXECUTE ON FUNCTION compression_enable(text, text) FROM PUBLIC;

CREATE OR REPLACE FUNCTION compression_prepare(chunk text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp SET lock_timeout = '5s' AS $$
DECLARE
    name text;
BEGIN
    PERFORM pg_advisory_xact_lock(lock_key('compression'));
    SELECT c.table_name INTO name FROM compression_chunks() c WHERE c.chunk_name = chunk AND c.due IS NOT NULL;
    IF FOUND THEN
        PERFORM compression_enable(name, chunk);
    END IF;
END
$$;
COMMENT ON FUNCTION compression_prepare(text) IS
    'Sets the table of a chunk that is due up for its compression, in a transaction of its own: where settings change, that locks the '
    'whole table for a moment.';
REVOKE EXECUTE ON FUNCTION compression_prepare(text) FROM PUBLIC;

CREATE OR REPLACE FUNCTION compression_apply(chunk text) RETURNS SETOF compressed_chunk
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp SET lock_timeout = '10s' AS $$
DECLARE
    before record;
    started timestamptz;
BEGIN
    IF timescale_edition() <> 'community' THEN
        RAISE EXCEPTION 'this database runs TimescaleDB''s Apache edition, which has no compression'
            USING ERRCODE = 'feature_not_supported', HINT = 'iot doctor says how to switch to the Community edition';
    END IF;
    -- Not the lock maintenance: a large chunk takes minutes, and nothing else of maintenance may wait so long. Who writes to this chunk,
    -- drops it or deletes from it waits for the chunk's own lock, or gives up after seconds and comes again.
    PERFORM pg_advisory_xact_lock(lock_key('compression'));
    SELECT c.* INTO before FROM compression_chunks() c WHERE c.chunk_name = chunk;
    IF before.due IS NULL THEN
        RETURN;  -- gone, done by somebody else, or never asked for
    END IF;
    started := clock_timestamp();
    IF before.due = 'recompress' THEN
        -- compress_chunk alone would merge the late rows, too, but leave their dead versions in heap and index: nothing gained.
        PERFORM decompress_chunk(chunk::regclass);
    END IF;
    -- A Bloom filter over the primary key, which newer releases add by themselves, takes a sixth of a chunk without segments and makes
    -- neither reading nor late rows quicker than min/max does. Those of message find an offset (iot trace), and stay.
    IF before.table_name = 'measurement' AND current_setting('timescaledb.auto_sparse_indexes', true) IS NOT NULL THEN
        PERFORM set_config('timescaledb.auto_sparse_indexes', 'off', true);
    END IF;
    PERFORM compress_chunk(chunk::regclass);
    RETURN QUERY
    INSERT INTO compressed_chunk AS r (table_name, chunk_name, range_start, range_end, action, rows, bytes_before, bytes_after, seconds)
    SELECT c.table_name, c.chunk_name, c.range_start, c.range_end, before.due, (
               SELECT z.numrows_pre_compression FROM _timescaledb_catalog.compression_chunk_size z
               WHERE z.chunk_id = _timescaledb_functions.chunk_id_from_relid(chunk::regclass)),
           before.bytes, c.bytes, extract(epoch FROM clock_timestamp() - started)
    FROM compression_chunks() c WHERE c.chunk_name = chunk
    RETURNING r.*;
END
$$;
COMMENT ON FUNCTION compression_apply(text) IS
    'Compresses one chunk (schema.name) that is due, as the table is set up (compression_prepare), and returns what it noted in '
    'compressed_chunk; nothing if it is not due. Holds up writers of that chunk. Apache edition: error 0A000.';
REVOKE EXECUTE ON FUNCTION compression_apply(text) FROM PUBLIC;

CREATE OR REPLACE FUNCTION disk_chunks() RETURNS TABLE (
    table_name text, range_start timestamptz, range_end timestamptz, bytes bigint, plain_bytes bigint, compressed boolean)
LANGUAGE sql STABLE SET jit = off AS $$
    SELECT regexp_replace(c.hypertable_name, '_stored$', '')::text, c.range_start, c.range_end, s.bytes,
           coalesce(b.bytes_before, s.bytes), c.is_compressed
    FROM timescaledb_information.chunks c
    CROSS JOIN LATERAL (SELECT to_regclass(format('%I.%I', c.chunk_schema, c.chunk_name)) AS chunk) k
    LEFT JOIN _timescaledb_catalog.compression_settings z ON z.relid = k.chunk
    CROSS JOIN LATERAL (
        SELECT coalesce(pg_total_relation_size(k.chunk), 0)
             + CASE WHEN c.is_compressed THEN coalesce(pg_total_relation_size(z.compress_relid), 0) ELSE 0 END AS bytes
    ) s
    LEFT JOIN LATERAL (  -- the first compression: before later ones the chunk was small already
        SELECT b.bytes_before FROM compressed_chunk b WHERE b.chunk_name = format('%I.%I', c.chunk_schema, c.chunk_name) AND c.is_compressed
        ORDER BY b.compressed_at LIMIT 1
    ) b ON true
    WHERE c.hypertable_schema = 'public'
$$;
COMMENT ON FUNCTION disk_chunks() IS
    'One row for each chunk of each hypertable (rollups under the name of their view): its bytes with indexes and TOAST, and what they '
    'were before compression.';

SELECT compression_enable(table_name) FROM compression_policy;
