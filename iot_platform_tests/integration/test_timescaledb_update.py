"""From each older release of TimescaleDB that the server has files of to its newest: the steps of docs/compression.md, with data."""

from contextlib import closing
from datetime import UTC, datetime, timedelta

import psycopg2
import pytest
from psycopg2 import sql

from iot_platform.compression.compress import compress
from iot_platform.database import connect, migrate, pending
from iot_platform.database.capabilities import read_capabilities
from iot_platform.database.edition import MINIMUM, version_numbers
from iot_platform.files import SQL
from iot_platform.local.postgresql_roles import create_database
from iot_platform.rollups import roll_up
from iot_platform.settings import Settings
from iot_platform.tenants.access import TenantAccessError, grant, revoke
from iot_platform_tests.support.feeds.community import TENANT, fill
from iot_platform_tests.support.feeds.drain import query
from iot_platform_tests.support.servers.stack import Servers

pytestmark = pytest.mark.sql
NAME = "test_0"


def test_data_outlives_an_update(servers: Servers) -> None:
    found = [version for version in _offered(servers) if version_numbers(version) >= MINIMUM]
    if len(found) < 2:
        pytest.skip(f"the server has files of one release only: {found}")
    for version in found[:-1]:
        _from(servers, version, found[-1])


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
    with closing(connect(settings)) as connection:
        report = read_capabilities(connection)
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
