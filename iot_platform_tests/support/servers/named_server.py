"""A PostgreSQL with TimescaleDB that somebody names for the tests, in place of the one that they start: IOT_TEST_COMMUNITY_URL."""

import os
from dataclasses import dataclass
from functools import cache
from urllib.parse import quote, urlsplit, urlunsplit

import psycopg2
import pytest
from psycopg2 import sql

from iot_platform.local.passwords import ROLES, Passwords
from iot_platform.local.postgresql_roles import close_other_databases, create_roles

VARIABLE = "IOT_TEST_COMMUNITY_URL"


@dataclass(frozen=True)
class NamedServer:
    """`superuser`: URL of a superuser in any database of it. The tests make the platform's roles there, with that user's password, and
    databases of their own (test_…), which they drop."""

    superuser: str

    def url(self, role: str, database: str) -> str:
        """A database as one of the stack's roles; postgres is the superuser, whatever its name is."""
        parts = urlsplit(self.superuser)
        login = parts.netloc.rpartition("@")[0]
        if role != "postgres":
            login = f"{quote(role)}:{quote(self._password)}"
        return urlunsplit((parts.scheme, f"{login}@{parts.netloc.rpartition('@')[2]}", f"/{database}", parts.query, ""))

    def prepare(self) -> None:
        """The roles, and nothing that an earlier run left."""
        create_roles(self.url("postgres", "postgres"), Passwords(dict.fromkeys(ROLES, self._password)))
        close_other_databases(self.url("postgres", "postgres"))
        for name in self._left("SELECT datname FROM pg_database WHERE datname ~ '^(test|community)_[0-9]+$|^iot_template$|^first_chain$'"):
            self.drop(name)

    def drop(self, name: str) -> None:
        """Drop a database, whoever is in it."""
        self._run(
            sql.SQL("ALTER DATABASE {} WITH ALLOW_CONNECTIONS true").format(sql.Identifier(name)),
            sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)),
        )

    @property
    def _password(self) -> str:
        return urlsplit(self.superuser).password or "postgres"

    def _left(self, query: str) -> list[str]:
        connection = psycopg2.connect(self.url("postgres", "postgres"))
        with connection.cursor() as cursor:
            cursor.execute(query)
            found = [str(name) for (name,) in cursor.fetchall()]
        connection.close()
        return found

    def _run(self, *statements: sql.Composed) -> None:
        connection = psycopg2.connect(self.url("postgres", "postgres"))
        connection.autocommit = True
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
        connection.close()


@cache
def named_server() -> NamedServer | None:
    """What the environment names, ready for tests; None: nothing. Ends the run where the server is not what it must be."""
    url = os.environ.get(VARIABLE, "")
    if not url:
        return None
    if os.environ.get("PYTEST_XDIST_WORKER"):
        pytest.exit(f"roles belong to a whole server: with {VARIABLE} tests run one at a time (make test ARGS='--numprocesses 0')", 2)
    server = NamedServer(url)
    server.prepare()
    with psycopg2.connect(server.url("postgres", "postgres")) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT coalesce(current_setting('timescaledb.license', true), 'none'), rolsuper FROM pg_roles WHERE rolname = current_user"
        )
        licence, superuser = cursor.fetchone() or ("", False)
    connection.close()
    if licence != "timescale" or not superuser:
        pytest.exit(f"{VARIABLE} must name a superuser of a server with timescaledb.license = timescale, not {licence}", 2)
    return server
