"""The platform on TimescaleDB's Community edition: the same migrations, the same drain, the same rows."""

import psycopg2
import pytest

from iot_platform.database import connect, pending
from iot_platform.database.migrate import require_migrated
from iot_platform.settings import Settings
from iot_platform_tests.support.feeds.drain import Feed, check_books, drain, query
from iot_platform_tests.support.servers.community import CommunityDatabase


def test_every_migration_applies(community: Settings) -> None:
    assert query(community, "SELECT timescale_edition()") == [("community",)]
    assert pending(community) == []
    connection = connect(community)
    require_migrated(connection)
    connection.close()


def test_connections_take_turns(community: Settings) -> None:
    """The fixture itself: roles, settings and transactions belong to their connection."""
    writer, reader = connect(community), connect(community, "reader")
    with writer.cursor() as first, reader.cursor() as second:
        first.execute("INSERT INTO project (tenant_id, project_id) VALUES ('t', 'p')")
        writer.rollback()
        second.execute("SELECT session_user, count(*) FROM project GROUP BY 1")
        assert second.fetchall() == []
        with pytest.raises(psycopg2.errors.ReadOnlySqlTransaction):
            second.execute("CREATE TEMPORARY TABLE mine (a integer)")
        reader.rollback()
        first.execute("SELECT session_user, current_setting('default_transaction_read_only')")
        assert first.fetchall() == [("iot_writer", "off")]
        with pytest.raises(psycopg2.errors.DivisionByZero):
            first.execute("SELECT 1/0")
        writer.rollback()
    writer.close()
    reader.close()


def test_the_drain_writes_the_same_rows(settings: Settings, community_database: CommunityDatabase) -> None:
    """One topic, drained into both editions."""
    on_community = settings.model_copy(update=community_database.emptied())
    feed = Feed(settings)
    for number in range(50):
        feed.send(b'{"t": %d.5, "on": true, "name": "x", "big": 9007199254740993}' % number, partition=number % 2)
    feed.send(b"{", partition=1)
    feed.send(b'{"ts": 1000}')
    feed.flush()
    rows = []
    for each in (settings, on_community):
        drain(each)
        check_books(each)
        rows.append(
            query(each, "SELECT time, tenant_id, device_id, metric, value, value_int, value_text FROM measurement_named ORDER BY 1, 4")
        )
    assert len(rows[0]) == 200
    assert rows[0] == rows[1]
