-- Wrong passwords for names that no user has. In the database, as those of users are (console_user): were they each process's own, a name
-- that is locked at one console and free at another, or after a restart, would tell that nobody has it.
CREATE TABLE console_unknown_name (
    name_hmac bytea PRIMARY KEY CHECK (octet_length(name_hmac) = 32),
    failures integer NOT NULL DEFAULT 1,
    locked_until timestamptz,
    failed_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 70);
CREATE INDEX console_unknown_name_failed_at_idx ON console_unknown_name (failed_at);
COMMENT ON TABLE console_unknown_name IS
    'One row is one name that no user has and that somebody tried to log in with; the newest 10,000 are kept.';
COMMENT ON COLUMN console_unknown_name.name_hmac IS
    'HMAC-SHA-256 of the name by the key in IOT_CONSOLE_KEY_FILE: a password typed in the name''s place stands nowhere.';
COMMENT ON COLUMN console_unknown_name.failures IS 'Wrong passwords for it.';
COMMENT ON COLUMN console_unknown_name.locked_until IS 'No password is tried before then.';
