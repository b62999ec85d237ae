CREATE TABLE backup_drill (
    started_at timestamptz PRIMARY KEY,
    seconds double precision NOT NULL,
    backup_label text,
    committed_at timestamptz,
    missing_messages bigint,
    lost_messages bigint,
    problems text[] NOT NULL
);
COMMENT ON TABLE backup_drill IS
    'One row is one restore of the newest backup for practice (iot backup drill), which leaves nothing else behind.';
COMMENT ON COLUMN backup_drill.backup_label IS 'What was restored; null when no backup could be.';
COMMENT ON COLUMN backup_drill.committed_at IS 'When the newest batch in the restored copy was committed; null: it had none.';
COMMENT ON COLUMN backup_drill.missing_messages IS 'Messages that the database held and the copy did not; null: nobody could tell.';
COMMENT ON COLUMN backup_drill.lost_messages IS 'Of all that the copy did not hold, what Kafka could no longer give.';
COMMENT ON COLUMN backup_drill.problems IS 'Why this backup would not be as it has to be; empty: the drill was passed.';

CREATE TABLE database_backup (
    label text PRIMARY KEY,
    type text NOT NULL,
    ended_at timestamptz NOT NULL,
    reported_at timestamptz NOT NULL
);
COMMENT ON TABLE database_backup IS
    'One row is one backup in the repository, as told by what makes them beside the server (deploy/compose); '
    'empty where Dagster makes them.';
