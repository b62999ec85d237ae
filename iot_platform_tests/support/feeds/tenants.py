"""Two tenants with data of their own in every table, and sessions as the login of one of them."""

import re
import time
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import psycopg2
import pytest
from psycopg2.extensions import connection as Connection  # noqa: N812
from psycopg2.extensions import make_dsn, parse_dsn

from iot_platform.database import connect
from iot_platform.settings import Settings
from iot_platform.tenants.access import Granted, grant
from iot_platform_tests.support.feeds.direct import DirectFeed
from iot_platform_tests.support.feeds.drain import Feed, drain, query
from iot_platform_tests.support.servers.stack import Servers

OWN, OTHER = "tenant-own", "secret-tenant"
SECRET = re.compile("secret[-_]|secret bad|5ec1e7|7731773")
"""Everything of the other tenant has one of these in it: names, texts and numbers."""


@dataclass
class Answer:
    """What a session got to see of one statement: rows, notices and the error, as text."""

    text: str
    code: str | None
    rows: list[tuple[Any, ...]] = field(default_factory=list)


@dataclass
class TwoTenants:
    """The platform, and the login of tenant OWN. All data of tenant OTHER matches SECRET."""

    settings: Settings
    superuser_url: str
    login: Granted

    def open(self) -> Connection:
        """A session as the login, autocommit."""
        return open_login(self.settings, self.login)

    def ask(self, text: str, *before: str) -> Answer:
        """One statement in a session of its own, after others; the whole session is over with the first error."""
        connection = self.open()
        try:
            return ask(connection, text, *before)
        finally:
            connection.close()

    def superuser(self, *statements: str) -> None:
        """Run statements as PostgreSQL's superuser."""
        connection = psycopg2.connect(self.superuser_url)
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                for statement in statements:
                    cursor.execute(statement)
        finally:
            connection.close()


def open_login(settings: Settings, login: Granted) -> Connection:
    """A session as a tenant's login, autocommit and read-write, so that refusals are for want of rights."""
    parameters = parse_dsn(settings.admin_url) | {"user": login.role, "password": login.password}
    connection: Connection = psycopg2.connect(make_dsn(**parameters))
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("SET default_transaction_read_only = off")
    return connection


def ask(connection: Connection, text: str, *before: str) -> Answer:
    """One statement, after others, in this session."""
    connection.notices = deque()  # a list would keep the last 50 only
    try:
        with connection.cursor() as cursor:
            for statement in before:
                cursor.execute(statement)
            cursor.execute(text)
            rows = cursor.fetchall() if cursor.description else []
    except psycopg2.Error as error:
        return Answer("\n".join([str(error), *connection.notices]), error.pgcode)
    plain = [tuple(bytes(value) if isinstance(value, memoryview) else value for value in row) for row in rows]
    return Answer("\n".join([*map(str, plain), *connection.notices]), None, plain)


def send_both(settings: Settings) -> None:
    """A few hours of both tenants, and messages of both in quarantine."""
    feed, now = Feed(settings), int(time.time()) // 60 * 60
    for number in range(60):
        at = now - 9000 + number * 120
        own = b'{"deviceId":"pump-%d","ts":%d,"flow":%d.5,"state":"open"}' % (number % 3, at, number)
        feed.send(own, topic=f"mtic/msg/client/realtime/{OWN}/plant-{number % 2}", partition=number % 2)
        if number % 2:
            other = b'{"deviceId":"secret-device-%d","ts":%d,"secret_flow":7731773.%d,"flow":7731773,"state":"5ec1e7 word"}'
            topic = f"mtic/msg/client/realtime/{OTHER}/secret-project"
            feed.send(other % (number % 5, at + 30, number), topic=topic, partition=number % 2)
    feed.send(b"own bad bytes", topic=f"mtic/msg/client/realtime/{OWN}/plant-0")
    feed.send(b"secret bad bytes", topic=f"mtic/msg/client/realtime/{OTHER}/secret-project")
    feed.flush()
    drain(settings)
    if query(settings, "SELECT to_regclass('quality_result') IS NOT NULL") == [(True,)]:
        for tenant, message in ((OWN, "pump-0 is silent"), (OTHER, "secret-device-1 is silent")):
            query(settings, _FINDING, tenant, message)
    query(settings, "ANALYZE")


def send_directly(settings: Settings) -> None:
    """The same of both tenants, decoded and written without Kafka."""
    feed, now = DirectFeed(settings), int(time.time()) // 60 * 60
    with closing(feed.connection):
        for number in range(60):
            at = now - 9000 + number * 120
            own = b'{"deviceId":"pump-%d","ts":%d,"flow":%d.5,"state":"open"}' % (number % 3, at, number)
            feed.send(_moment(at + 1), own, f"mtic/msg/client/realtime/{OWN}/plant-{number % 2}")
            if number % 2:
                other = b'{"deviceId":"secret-device-%d","ts":%d,"secret_flow":7731773.%d,"flow":7731773,"state":"5ec1e7 word"}'
                feed.send(_moment(at + 2), other % (number % 5, at + 30, number), f"mtic/msg/client/realtime/{OTHER}/secret-project")
        feed.send(_moment(now - 100), b"own bad bytes", f"mtic/msg/client/realtime/{OWN}/plant-0")
        feed.send(_moment(now - 99), b"secret bad bytes", f"mtic/msg/client/realtime/{OTHER}/secret-project")
        feed.flush()
    for tenant, message in ((OWN, "pump-0 is silent"), (OTHER, "secret-device-1 is silent")):
        query(settings, _FINDING, tenant, message)
    query(settings, "ANALYZE series, message, measurement, accounting_1h")


def _moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


_FINDING = """
WITH i AS (
    INSERT INTO quality_incident (opened_at, last_seen_at, told_at, clear_seconds, hold_seconds, rule, tenant_id, project_id, device_id,
        metric, severity, message)
    VALUES (now(), now(), now(), 0, 0, 'freshness_device', %s, 'p', '', '', 'WARN', %s) RETURNING *
)
INSERT INTO quality_result (evaluated_at, incident_id, rule, tenant_id, project_id, device_id, metric, status, message, value)
SELECT now(), incident_id, rule, tenant_id, project_id, device_id, metric, 'WARN', message, 1 FROM i"""


@pytest.fixture
def two_tenants(settings: Settings, servers: Servers) -> Iterator[TwoTenants]:
    """See TwoTenants; the other tenant has a login, too."""
    send_both(settings)
    owner = connect(settings, "admin")
    try:
        login = grant(owner, OWN)
        other = grant(owner, OTHER)
        yield TwoTenants(settings, servers.superuser_url(parse_dsn(settings.admin_url)["dbname"]), login)
        drop_roles(servers, login, other)
    finally:
        owner.close()


def drop_roles(servers: Servers, *logins: Granted) -> None:
    """Roles belong to the server, which later tests use, too."""
    connection = psycopg2.connect(servers.superuser_url())
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            for login in logins:
                cursor.execute(f"DROP ROLE IF EXISTS {login.role}")
    finally:
        connection.close()
