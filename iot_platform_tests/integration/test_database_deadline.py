"""Calls to PostgreSQL through a link that dies without a word end, on both sides of it."""

import io
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from urllib.parse import urlsplit

import psycopg2
import pytest

from iot_platform.database import connect
from iot_platform.database.abandoned import end_abandoned
from iot_platform.database.deadline import BoundedConnection
from iot_platform.drills.rig.proxy import Proxy
from iot_platform.settings import Settings


@pytest.fixture
def proxy(settings: Settings) -> Iterator[Proxy]:
    with Proxy("127.0.0.1", urlsplit(settings.writer_url).port or 5432) as made:
        yield made


def dial(settings: Settings, proxy: Proxy, seconds: float = 1.0) -> BoundedConnection:
    """A writer's connection through the proxy, less patient than usual."""
    parts = urlsplit(settings.writer_url)
    netloc = parts.netloc.rpartition(":")[0] + f":{proxy.port}"
    through = settings.model_copy(update={"database_url": type(settings.database_url)(parts._replace(netloc=netloc).geturl())})
    connection = connect(through)
    assert isinstance(connection, BoundedConnection)
    connection.answer_seconds = seconds
    return connection


def test_a_query_through_a_dead_link_ends(settings: Settings, proxy: Proxy) -> None:
    with closing(dial(settings, proxy)) as connection:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
            proxy.deaf()
            with pytest.raises(psycopg2.OperationalError, match=r"no answer for 1 s.*IOT_DATABASE_URL"):
                cursor.execute("SELECT 2")
        assert connection.closed


def test_a_commit_through_a_dead_link_ends(settings: Settings, proxy: Proxy) -> None:
    with closing(dial(settings, proxy)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        proxy.deaf(up=False)
        with pytest.raises(psycopg2.OperationalError, match="no answer for 1 s"):
            connection.commit()


def test_a_copy_through_a_dead_link_ends(settings: Settings, proxy: Proxy) -> None:
    with closing(dial(settings, proxy)) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TEMPORARY TABLE t (a text)")
        proxy.deaf()
        with pytest.raises(psycopg2.OperationalError, match="no answer for 1 s"):
            cursor.copy_expert("COPY t FROM STDIN", io.BytesIO(b"x\n" * 10_000_000), size=65536)


def test_the_locks_of_a_client_that_vanished_in_a_copy_are_freed(settings: Settings, proxy: Proxy) -> None:
    """The server heeds no timeout while it waits for the rest of a COPY."""

    class Vanishing(io.RawIOBase):
        def read(self, _size: int = -1) -> bytes:
            proxy.deaf()
            raise ConnectionError

    project = "INSERT INTO project (tenant_id, project_id) VALUES ('t', 'p') ON CONFLICT DO NOTHING"
    with closing(dial(settings, proxy)) as connection, connection.cursor() as cursor:
        cursor.execute(project)
        with pytest.raises((psycopg2.Error, ConnectionError)):
            cursor.copy_expert("COPY series_latest FROM STDIN", Vanishing())
    with closing(connect(settings)) as other, other.cursor() as cursor:
        assert end_abandoned(other) == 0, "too early"
        cursor.execute("SET LOCAL lock_timeout = '500ms'")
        with pytest.raises(psycopg2.errors.LockNotAvailable):
            cursor.execute(project)
        other.rollback()
        assert end_abandoned(other, 0.5) == 1
        cursor.execute(project)
        assert cursor.rowcount == 1
        other.rollback()
        assert end_abandoned(other, 0.5) == 0


def test_an_answer_in_time_is_no_fault(settings: Settings, proxy: Proxy) -> None:
    with closing(dial(settings, proxy, 5.0)) as connection, connection.cursor() as cursor:
        for _ in range(3):
            cursor.execute("SELECT pg_sleep(1.2)")
        cursor.execute("CREATE TEMPORARY TABLE t (a text)")
        cursor.copy_expert("COPY t FROM STDIN", io.BytesIO(b"x\n" * 1000), size=64)
        cursor.execute("SELECT count(*) FROM t")
        assert cursor.fetchone() == (1000,)
        with pytest.raises(psycopg2.errors.DivisionByZero):
            cursor.execute("SELECT 1 / 0")
        connection.rollback()


def test_many_threads_wait_at_once(settings: Settings, proxy: Proxy) -> None:
    connections = [dial(settings, proxy) for _ in range(4)]
    proxy.deaf()
    ended: list[float] = []

    def ask(connection: BoundedConnection) -> None:
        started = time.monotonic()
        with pytest.raises(psycopg2.OperationalError):
            connection.cursor().execute("SELECT 1")
        ended.append(time.monotonic() - started)

    threads = [threading.Thread(target=ask, args=(connection,)) for connection in connections]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(ended) == 4
    for connection in connections:
        connection.close()


def test_a_connection_that_cannot_be_made_ends(settings: Settings, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    from iot_platform.database import connection as module
    from iot_platform.database.errors import DatabaseUnreachableError

    monkeypatch.setitem(module.DEFAULTS, "connect_timeout", "2")
    proxy.deaf()
    with pytest.raises(DatabaseUnreachableError, match="timeout"):
        dial(settings, proxy)


def test_the_server_looks_after_the_client_too(settings: Settings) -> None:
    """What keeps the locks of a vanished client: idle transactions, and TCP connections that nobody tends."""
    names = "tcp_keepalives_idle", "tcp_user_timeout", "idle_in_transaction_session_timeout", "statement_timeout", "lock_timeout"
    with closing(connect(settings)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT name, setting::int FROM pg_settings WHERE name = ANY (%s)", (list(names),))
        assert dict(cursor.fetchall()) == {
            "tcp_keepalives_idle": 10,
            "tcp_user_timeout": 30_000,
            "idle_in_transaction_session_timeout": 60_000,
            "statement_timeout": 60_000,
            "lock_timeout": 30_000,
        }
