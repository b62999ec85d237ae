"""What a tenant's session that will not end can hold up: nothing for long, whatever the tenant SETs."""

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from psycopg2.extensions import connection as Connection  # noqa: N812

from iot_platform.database import connect, migrate
from iot_platform.database.tenant_sessions import end_tenant_sessions
from iot_platform.diagnostics.doctor import _tenants
from iot_platform.files import SQL
from iot_platform.orchestration import tenant_session_watch
from iot_platform.settings import Settings
from iot_platform.tenants.access import Granted, grant, unguarded
from iot_platform_tests.support.feeds.direct import DirectFeed
from iot_platform_tests.support.feeds.drain import query
from iot_platform_tests.support.feeds.tenants import drop_roles, open_login
from iot_platform_tests.support.servers.stack import Servers
from iot_platform_tests.support.waiting import eventually

TOPIC = "mtic/msg/client/realtime/acme/plant"
END = "SELECT role_name, reason FROM end_tenant_sessions(%s, %s)"


@dataclass
class Login:
    """A tenant's login; its statements may take a second."""

    settings: Settings
    granted: Granted

    def open(self, *statements: str) -> Connection:
        """A session that has done what it may to live for ever, and then these statements."""
        connection = open_login(self.settings, self.granted)
        for timeout in ("statement_timeout", "idle_in_transaction_session_timeout"):
            run(connection, f"SET {timeout} = 0", f'ALTER ROLE "{self.granted.role}" SET {timeout} = 0')
        run(connection, *statements)
        return connection

    def end(self, in_the_way: str | None = None, patience: str = "60 s") -> list[str]:
        """Why sessions were ended, as the writer."""
        with closing(connect(self.settings)) as writer, writer.cursor() as cursor:
            cursor.execute(END, (in_the_way, patience))
            ended = cursor.fetchall()
            writer.commit()
        assert {role for role, _ in ended} <= {self.granted.role}
        return [reason for _, reason in ended]


def run(connection: Connection, *statements: str) -> None:
    """Run statements for their effect."""
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def is_open(connection: Connection) -> bool:
    """Whether the session still answers."""
    try:
        run(connection, "SELECT 1")
    except (psycopg2.OperationalError, psycopg2.InterfaceError):
        return False
    return True


@pytest.fixture
def login(settings: Settings, servers: Servers) -> Iterator[Login]:
    """See Login. Tenant acme has a few rows."""
    feed = DirectFeed(settings)
    feed.send(datetime.now(UTC), {"deviceId": "d0", "flow": 1.5}, TOPIC)
    feed.flush()
    feed.close()
    query(settings, "DELETE FROM kafka_offset")  # the next feed begins with offsets of its own
    with closing(connect(settings, "admin")) as owner:
        granted = grant(owner, "acme", statement_seconds=1)
    yield Login(settings, granted)
    drop_roles(servers, granted)


def test_a_transaction_ends_whatever_the_login_sets(login: Login, settings: Settings) -> None:
    idle = login.open("BEGIN", "SELECT count(*) FROM tenant.measurement")
    free = login.open("SELECT 1")  # in no transaction: it holds nothing and may stay
    slow, failed = login.open(), list[str]()

    def sleep() -> None:
        try:
            run(slow, "SELECT pg_sleep(60)")
        except psycopg2.Error as error:
            failed.append(str(error))

    sleeper = threading.Thread(target=sleep)
    sleeper.start()
    assert login.end() == [], "nothing is a minute old"
    seen: list[str] = []
    eventually(lambda: seen.extend(login.end(patience="300 ms")) or len(seen) == 2, what="two transactions are too old")
    assert set(seen) == {"idle in a transaction", "in a transaction for longer than its statements may take"}
    sleeper.join(10)
    assert (is_open(idle), len(failed), is_open(free)) == (False, 1, True)
    run(free, "BEGIN", "SELECT 1")
    eventually(lambda: login.end(in_the_way="100 ms") == ["in the way of maintenance or a migration"], what="it is in the way")
    for role in ("iot_reader", "iot_tenant"):
        assert query(settings, "SELECT has_function_privilege(%s, 'end_tenant_sessions(interval, interval)', 'EXECUTE')", role) == [
            (False,)
        ]


def test_a_login_that_the_owner_may_not_end_is_told(login: Login, settings: Settings, servers: Servers) -> None:
    assert [item.state for item in _tenants(settings)] == ["ok"]
    superuser = psycopg2.connect(servers.superuser_url())
    superuser.autocommit = True
    run(superuser, f"REVOKE {login.granted.role} FROM iot_migrator GRANTED BY iot_migrator")
    superuser.close()
    session = login.open("BEGIN", "SELECT 1")
    (finding,) = _tenants(settings)
    assert (finding.state, login.granted.role in finding.text) == ("bad", True)
    with closing(connect(settings, "admin")) as owner:
        assert (unguarded(owner), end_tenant_sessions(owner, 0.0)) == ([login.granted.role], 0)
        grant(owner, "acme", statement_seconds=1)
        assert (unguarded(owner), end_tenant_sessions(owner, 0.0)) == ([], 1)
    assert not is_open(session)


@pytest.mark.parametrize("reads", [True, False], ids=["idle in a transaction", "does not read"])
@pytest.mark.filterwarnings("ignore:The `__fields__` attribute is deprecated")
def test_notifications_do_not_pile_up(login: Login, settings: Settings, monkeypatch: pytest.MonkeyPatch, reads: bool) -> None:
    """The sensor that always runs frees the queue, which Dagster's storage needs; a session that asks nothing of it stays."""
    listener = login.open("LISTEN run_events", *(("BEGIN", "SELECT 1") if reads else ()))
    sender, usage = login.open(), "SELECT pg_notification_queue_usage()"
    while query(settings, usage)[0][0] <= 0.012:
        run(sender, "SELECT pg_notify('run_events', i || repeat('y', 7900)) FROM generate_series(1, 1000) i")
    monkeypatch.setattr(tenant_session_watch, "TICK_SECONDS", 2.5)
    eventually(
        lambda: tenant_session_watch.watch_tenant_sessions(settings) and query(settings, usage)[0][0] < 0.001, what="the queue is not freed"
    )
    assert (is_open(sender), is_open(listener)) == (True, False)


def test_who_waits_for_a_tenants_lock_gets_it(login: Login, settings: Settings) -> None:
    """Ended while somebody waits, though no transaction is old; others of tenants go on."""
    blocking, other = login.open("BEGIN", "SELECT count(*) FROM tenant.measurement"), login.open("BEGIN", "SELECT 1")
    waiter = threading.Thread(target=query, args=(settings, "ALTER TABLE series ADD COLUMN zz integer"))
    waiter.start()
    eventually(lambda: login.end() == ["in the way of maintenance or a migration"], what="the waiting statement stays behind it")
    waiter.join(10)
    assert not waiter.is_alive()
    assert (is_open(blocking), is_open(other)) == (False, True)


class Drainer:
    """Batches with a new series each, one after the other, for as long as the block lasts; `seconds` is what each took."""

    def __init__(self, settings: Settings) -> None:
        self.seconds: list[float] = []
        self._feed, self._over = DirectFeed(settings), threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Drainer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(60)
        self._feed.close()

    def _run(self) -> None:
        while not self._over.is_set():
            began = time.monotonic()
            self._feed.send(datetime.now(UTC), {"deviceId": f"new-{len(self.seconds)}", "flow": 1.5}, TOPIC)
            self._feed.flush()
            self.seconds.append(time.monotonic() - began)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of sql/ with one more migration, which locks a table that drains and tenants use."""
    made = Path(shutil.copytree(SQL, tmp_path / "sql"))
    (made / "migrations" / "9001_pre_add_series_column.sql").write_text("ALTER TABLE series ADD COLUMN zz integer;")
    return made


def test_a_migration_ends_the_tenant_in_its_way(login: Login, settings: Settings, folder: Path) -> None:
    idle = login.open("BEGIN", "SELECT count(*) FROM tenant.measurement")
    with Drainer(settings) as drainer:
        eventually(lambda: drainer.seconds, what="the drain does not begin")
        applied = migrate(settings, sql_dir=folder)
        done = len(drainer.seconds)
        eventually(lambda: len(drainer.seconds) > done + 1, what="the drain does not go on")
    assert "migrations/9001_pre_add_series_column.sql" in applied
    assert not is_open(idle)
    assert max(drainer.seconds) < 8, "a drain waits for one try, 2.5 s"


def test_a_migration_lets_drains_go_on_while_it_waits_for_others(login: Login, settings: Settings, folder: Path) -> None:
    """A reader of the platform's own is never ended: the migration comes again and again, and drains pass in between."""
    reader, reported = connect(settings, "reader"), list[tuple[str, int]]()
    run(reader, "SELECT count(*) FROM series")
    with Drainer(settings) as drainer:

        def progress(text: str) -> None:
            reported.append((text, len(drainer.seconds)))
            if len(waits()) == 3:
                reader.rollback()

        def waits() -> list[int]:
            return [batches for text, batches in reported if "waits for locks" in text]

        applied: Any = migrate(settings, progress, folder)
    assert "migrations/9001_pre_add_series_column.sql" in applied
    assert len(waits()) >= 3
    assert waits()[0] < waits()[1] < waits()[2], "batches are committed between the tries"
    assert max(drainer.seconds) < 8
    assert is_open(reader)
    reader.close()
