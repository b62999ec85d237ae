-- Compression of old chunks, which only TimescaleDB's Community edition has; the policies are kept in either.
CREATE TABLE compression_policy (
    older_than interval NOT NULL CHECK (older_than >= INTERVAL '1 hour'),
    late_share double precision NOT NULL DEFAULT 0.1 CHECK (late_share > 0),
    changed_at timestamptz NOT NULL DEFAULT now(),
    segment_rows integer NOT NULL DEFAULT 300 CHECK (segment_rows > 0),
    enabled boolean NOT NULL DEFAULT true,
    table_name text PRIMARY KEY,
    segment_by text NOT NULL,
    order_by text NOT NULL,
    changed_by text NOT NULL DEFAULT 'migration'
);
COMMENT ON TABLE compression_policy IS 'One row is one hypertable whose old chunks are compressed; `iot compression set` changes it.';
COMMENT ON COLUMN compression_policy.older_than IS 'A chunk is compressed once its end is this far in the past.';
COMMENT ON COLUMN compression_policy.late_share IS
    'A compressed chunk is compressed again once the rows that came late take more than this share of its compressed bytes.';
COMMENT ON COLUMN compression_policy.segment_by IS 'Columns whose values are stored once for up to 1,000 rows.';
COMMENT ON COLUMN compression_policy.segment_rows IS
    'A chunk with fewer rows per segment, on average, has none: it is ordered by segment_by and order_by. Segments of 6 rows compress 1.8 times, that order 7.4.';
COMMENT ON COLUMN compression_policy.order_by IS 'Order of the rows inside a segment; neighbours should be alike.';
COMMENT ON COLUMN compression_policy.changed_by IS 'Who changed it last.';

INSERT INTO compression_policy (table_name, older_than, segment_by, order_by) VALUES
    ('measurement', '7 days', 'series_id', 'time'),
    -- Not by source: a source may have ten messages a day. Ordered by source, neighbouring payloads are alike all the same.
    ('message', '1 day', 'kafka_partition', 'source_id, received_at'),
    -- The audit asks for accepted losses all the time: `kind` keeps that an index lookup.
    ('ledger', '30 days', 'kafka_partition, kind', 'from_offset');

CREATE TABLE compressed_chunk (
    compressed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    range_start timestamptz NOT NULL,
    range_end timestamptz NOT NULL,
    rows bigint,
    bytes_before bigint NOT NULL,
    bytes_after bigint NOT NULL,
    seconds double precision NOT NULL,
    table_name text NOT NULL,
    chunk_name text NOT NULL,
    action text NOT NULL CHECK (action IN ('compress', 'recompress')),
    PRIMARY KEY (chunk_name, compressed_at)
);
COMMENT ON TABLE compressed_chunk IS 'One row is one compression of one chunk: what it was before, and after. The newest row of a chunk tells its state.';
COMMENT ON COLUMN compressed_chunk.range_start IS 'First time of the chunk; range_end is the first one after it.';
COMMENT ON COLUMN compressed_chunk.rows IS 'Rows in the chunk, as TimescaleDB counted them.';
COMMENT ON COLUMN compressed_chunk.bytes_before IS 'With indexes and TOAST, as bytes_after.';
COMMENT ON COLUMN compressed_chunk.action IS 'recompress: rows that came late were merged into a compressed chunk.';
