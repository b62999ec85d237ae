"""A database as the first chain of migrations made it, with the rows of a platform that ran on it: see first_chain_sql/README.md."""

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

import psycopg2
import pytest
from psycopg2 import sql

from iot_platform.database import migrate
from iot_platform.local.postgresql_roles import create_database
from iot_platform.settings import Settings
from iot_platform_tests.support.feeds.drain import query
from iot_platform_tests.support.servers.community import TEMPLATE, run_pglite
from iot_platform_tests.support.servers.stack import Servers

FIRST_CHAIN: Final = Path(__file__).parent / "first_chain_sql"


@pytest.fixture
def first_chain(servers: Servers, edition: str, tmp_path: Path) -> Iterator[Settings]:
    """Apache edition; and Community in tests marked `both_editions`, on a server of its own."""
    if os.environ.get("IOT_TEST_NEWEST_TIMESCALEDB"):
        pytest.skip("the first chain cannot be made on TimescaleDB 2.29 and newer")
    if edition == "community":
        with run_pglite(tmp_path, sql_dir=FIRST_CHAIN) as server:
            made = Settings(**server.urls(TEMPLATE))  # type: ignore[arg-type]
            _load(made, "rows.sql")
            for name in ("measurement_1h", "measurement_1d"):
                query(made, f"CALL refresh_continuous_aggregate('{name}', NULL, now() - interval '1 day')")
            yield made
        return
    name = "first_chain"
    create_database(servers.superuser_url(), name)
    urls = {role: servers.postgresql.url(f"iot_{role}", name) for role in ("writer", "migrator", "reader")}
    made = Settings(database_url=urls["writer"], database_admin_url=urls["migrator"], database_reader_url=urls["reader"])  # type: ignore[arg-type]
    migrate(made, sql_dir=FIRST_CHAIN)
    _load(made, "rows.sql", "rows_apache.sql")
    yield made
    with closing(psycopg2.connect(servers.superuser_url())) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def _load(settings: Settings, *files: str) -> None:
    with closing(psycopg2.connect(settings.admin_url)) as connection, connection, connection.cursor() as cursor:
        for file in files:
            cursor.execute((FIRST_CHAIN / file).read_text("utf-8"))
