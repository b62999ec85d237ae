-- What `iot import` took in: each import is a partition of the topic `import` in kafka_offset and ledger.
CREATE TABLE import_file (
    kafka_partition integer GENERATED ALWAYS AS IDENTITY (START WITH 1000000) PRIMARY KEY,
    sha256 bytea NOT NULL,
    bytes bigint NOT NULL,
    name text NOT NULL,
    mapping text NOT NULL,
    mapping_sha256 bytea NOT NULL,
    started_at timestamptz DEFAULT now() NOT NULL,
    finished_at timestamptz,
    records bigint
);
CREATE INDEX import_file_sha256_idx ON import_file (sha256);
COMMENT ON TABLE import_file IS
    'One row is one import of a file: how far it is stands in kafka_offset (topic import, same partition), what became of it in ledger.';
COMMENT ON COLUMN import_file.kafka_partition IS 'Its partition in ledger, message and quarantine; Kafka has none with such a number.';
COMMENT ON COLUMN import_file.sha256 IS 'Of the content (of .gz files: unpacked): what is the same file, whatever it is called.';
COMMENT ON COLUMN import_file.bytes IS 'Length of that content: by it a file that grew is known.';
COMMENT ON COLUMN import_file.mapping IS 'The mapping file, as it was.';
COMMENT ON COLUMN import_file.records IS 'How many records the file has; null until all of them are in.';
