"""The steps of docs/compression.md, with data: from each older release of TimescaleDB that the server has files of to its newest, and
from Apache to Community."""

from contextlib import closing
from datetime import UTC, datetime, timedelta

import psycopg2
import pytest
from psycopg2 import sql

from iot_platform.compression.compress import compress
from iot_platform.database import connect, migrate, pending
from iot_platform.database.capabilities import Capabilities, read_capabilities
from iot_platform.database.edition import MINIMUM, version_numbers
from iot_platform.files import SQL
from iot_platform.local.postgresql_roles import create_database
from iot_platform.rollups import roll_up
from iot_platform.settings import Settings
from iot_platform.tenants.access import TenantAccessError, grant, revoke
from iot_platform_tests.support.feeds.community import TENANT, fill
from iot_platform_tests.support.feeds.drain import query
from iot_platform_tests.support.servers.named_server import VARIABLE, named_server
from iot_platform_tests.support.servers.stack import Servers
from iot_platform_tests.support.waiting import eventually

pytestmark = pytest.mark.sql
NAME = "test_0"


def test_data_outlives_an_update(servers: Servers) -> None:
    found = [version for version in _offered(servers) if version_numbers(version) >= MINIMUM]
    if len(found) < 2:
        pytest.skip(f"the server has files of one release only: {found}")
    for version in found[:-1]:
        _from(servers, version, found[-1])


def test_data_outlives_the_switch_to_community(servers: Servers) -> None:
    """And back, which is no way: what is compressed cannot be read then, and every command that needs it says so."""
    if named_server() is None:
        pytest.skip(f"Debian's packages are Apache only: name a Community server in {VARIABLE}")
    try:
        _licence(servers, "apache")
        settings = _database(servers, _offered(servers)[-1])
        migrate(settings)
        start = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(days=12)
        fill(settings, start, series=50, count=300, step=timedelta(minutes=5))
        assert roll_up(settings).complete
        assert compress(settings).done == []
        tables = [f"SELECT * FROM {table} ORDER BY 2, 1" for table in ("measurement", "measurement_1h", "measurement_1d")]
        before = [query(settings, statement) for statement in tables]

        _licence(servers, "timescale")
        assert pending(settings), "what is made for an edition is made again"
        migrate(settings)
        assert _capabilities(settings).edition == "community"
        packed = compress(settings).done
        assert [(item.table, item.action) for item in packed] == [("measurement", "compress")] * len(packed) != []
        assert [query(settings, statement) for statement in tables] == before

        _licence(servers, "apache")
        broken = [item for item in _capabilities(settings).items if item.broken]
        assert [item.text for item in broken] == [
            f"{len(packed)} chunks are compressed, and nobody can read them: the licence was taken back to apache"
        ]
    finally:
        _licence(servers, "timescale")
        _drop(servers)


def _licence(servers: Servers, name: str) -> None:
    """In the server's configuration, which says timescale by itself; sessions that begin later have it."""
    change = "ALTER SYSTEM RESET timescaledb.license" if name == "timescale" else f"ALTER SYSTEM SET timescaledb.license = '{name}'"
    for statement in (change, "SELECT pg_reload_conf()"):
        with closing(psycopg2.connect(servers.superuser_url())) as connection:
            connection.autocommit = True
            connection.cursor().execute(statement)

    def taken() -> bool:
        with closing(psycopg2.connect(servers.superuser_url())) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT current_setting('timescaledb.license')")
            return cursor.fetchall() == [(name,)]

    eventually(taken, 20, f"the server of {VARIABLE} must have timescaledb.license in its configuration, not on its command line")


def _capabilities(settings: Settings) -> Capabilities:
    with closing(connect(settings)) as connection:
        return read_capabilities(connection)


def _offered(servers: Servers) -> list[str]:
    query = "SELECT version FROM pg_available_extension_versions WHERE name = 'timescaledb'"
    with closing(psycopg2.connect(servers.superuser_url())) as connection, connection.cursor() as cursor:
        cursor.execute(query)
        return sorted((str(row[0]) for row in cursor.fetchall()), key=version_numbers)


def _from(servers: Servers, old: str, new: str) -> None:
    settings = _database(servers, old)
    migrate(settings)
    start = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(days=12)
    fill(settings, start, series=50, count=300, step=timedelta(minutes=5))
    assert roll_up(settings).complete
    packed = len(compress(settings).done)
    rows = "SELECT time, series_id, value, value_text FROM measurement ORDER BY 2, 1"
    hours = "SELECT * FROM measurement_1h ORDER BY 2, 1"
    before = query(settings, rows), query(settings, hours)
    assert len(before[0]) == 15_000

    _as_superuser(servers, f"ALTER EXTENSION timescaledb UPDATE TO '{new}'")
    assert (query(settings, rows), query(settings, hours)) == before
    assert pending(settings), "what is made for a release is made again"
    _as_superuser(servers, (SQL / "superuser" / "harden_database.sql").read_text("utf-8"))
    migrate(settings)
    report = _capabilities(settings)
    assert (report.timescaledb, report.has("compression")) == (new, packed > 0)

    fill(settings, start + timedelta(seconds=7), series=50, count=100, step=timedelta(minutes=15))
    query(settings, "INSERT INTO rollup_change SELECT DISTINCT date_trunc('hour', time, 'UTC'), series_id FROM measurement")
    assert roll_up(settings).notes > 0
    again = compress(settings)
    assert {item.action for item in again.done} == ({"recompress"} if packed else set())
    assert query(settings, "SELECT count(*), (SELECT sum(value_count) FROM measurement_1h) FROM measurement") == [(20_000, 20_000)]
    with closing(connect(settings, "admin")) as owner:
        assert grant(owner, TENANT).created
        revoke(owner, TENANT)
        _as_superuser(servers, "GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA _timescaledb_functions TO PUBLIC")
        with pytest.raises(TenantAccessError, match="again after each ALTER EXTENSION UPDATE"):
            grant(owner, TENANT)
    _drop(servers)


def _database(servers: Servers, version: str) -> Settings:
    """As create_database makes it, but with that release."""
    _drop(servers)
    with closing(psycopg2.connect(servers.superuser_url())) as connection:
        connection.autocommit = True
        connection.cursor().execute(f"CREATE DATABASE {NAME} OWNER iot_migrator")
    _as_superuser(servers, f"CREATE EXTENSION timescaledb VERSION '{version}'")
    create_database(servers.superuser_url(), NAME)
    urls = {role: servers.postgresql.url(f"iot_{role}", NAME) for role in ("writer", "migrator", "reader")}
    return Settings(database_url=urls["writer"], database_admin_url=urls["migrator"], database_reader_url=urls["reader"])  # type: ignore[arg-type]


def _as_superuser(servers: Servers, statement: str) -> None:
    """As the first statement of its session: until an update no other works."""
    with closing(psycopg2.connect(servers.superuser_url(NAME))) as connection:
        connection.autocommit = True
        connection.cursor().execute(statement)


def _drop(servers: Servers) -> None:
    with closing(psycopg2.connect(servers.superuser_url())) as connection:
        connection.autocommit = True
        connection.cursor().execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(NAME)))
