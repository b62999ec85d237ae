"""What a compression holds up while it lasts, which may be many minutes: only the chunk's own late rows."""

from contextlib import closing
from datetime import UTC, datetime, timedelta

from psycopg2.extensions import cursor as Cursor  # noqa: N812

from iot_platform.compression.chunks import read_chunks
from iot_platform.database import connect
from iot_platform.settings import Settings
from iot_platform_tests.support.feeds.community import fill
from iot_platform_tests.support.feeds.drain import query

# PGlite has one session: all locks are ours.
HELD = """
SELECT mode FROM pg_locks WHERE granted AND locktype = 'relation' AND relation = 'measurement'::regclass
AND mode NOT IN ('AccessShareLock', 'RowShareLock', 'RowExclusiveLock', 'ShareUpdateExclusiveLock')"""
ADVISORY = """
SELECT name FROM unnest(ARRAY['maintenance', 'rollup-threshold', 'catalog', 'compression']) name
JOIN pg_locks l ON l.locktype = 'advisory' AND (l.classid::bigint << 32 | l.objid::bigint) = lock_key(name)"""


def test_only_the_chunk_is_locked(community: Settings) -> None:
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    fill(community, midnight - timedelta(days=20), series=10, count=2000, step=timedelta(seconds=40))
    fill(community, midnight - timedelta(days=19), series=2000, count=5, step=timedelta(hours=4))
    with closing(connect(community, "admin")) as connection:
        due = [chunk.name for chunk in read_chunks(connection) if chunk.due]
        assert len(due) == 2
        changed = []
        with connection.cursor() as cursor:
            for chunk in due:
                cursor.execute("SELECT compression_prepare(%s)", (chunk,))
                changed += _column(cursor, HELD)
                connection.commit()
                cursor.execute("SELECT action FROM compression_apply(%s)", (chunk,))
                assert _column(cursor) == ["compress"]
                assert _column(cursor, HELD) == [], "drains wait for a compression"
                assert _column(cursor, ADVISORY) == ["compression"]
                connection.commit()
        assert changed, "the second chunk needs other settings, which lock the table: the test proves nothing"
    assert query(community, "SELECT count(*) FROM timescaledb_information.chunks WHERE is_compressed") == [(2,)]


def _column(cursor: Cursor, text: str = "") -> list[str]:
    if text:
        cursor.execute(text)
    return [row[0] for row in cursor.fetchall()]
