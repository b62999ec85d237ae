"""Migrations on real PostgreSQL: repeatable, safe when two start at once, strict about changed files, content with few rights."""

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg2
import pytest
from psycopg2 import sql
from pydantic import SecretStr

from iot_platform.database import LockTimeoutError, MigrationError, SchemaError, connect, migrate, pending
from iot_platform.database.errors import DatabaseAccessError, DatabaseUnreachableError
from iot_platform.database.locks import shard_lock
from iot_platform.database.migrate import require_migrated
from iot_platform.files import SQL
from iot_platform.settings import Settings
from iot_platform_tests.support.feeds.drain import query
from iot_platform_tests.support.servers.stack import Servers

pytestmark = pytest.mark.sql


@pytest.fixture
def empty(settings: Settings, servers: Servers) -> Iterator[Settings]:
    """A database with nothing in it, owned by a role without any privilege on the server; the extension is the template's business."""
    admin = psycopg2.connect(servers.superuser_url())
    admin.autocommit = True
    name = f"empty_{urlsplit(settings.admin_url).path.strip('/')}"
    with admin.cursor() as cursor:
        cursor.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'x'").format(sql.Identifier(name)))
        cursor.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(name), sql.Identifier(name)))
    parts = urlsplit(servers.superuser_url())
    url = SecretStr(f"postgresql://{name}:x@{parts.hostname}:{parts.port}/{name}")
    yield settings.model_copy(update={"database_url": url, "database_admin_url": url, "database_reader_url": None})
    with admin.cursor() as cursor:
        cursor.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
        cursor.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))
    admin.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of sql/ to tamper with."""
    return Path(shutil.copytree(SQL, tmp_path / "sql"))


def test_an_owner_without_rights_migrates_and_repeats(empty: Settings) -> None:
    assert len(pending(empty)) > 8
    with pytest.raises(SchemaError, match="iot migrate"):
        require_migrated(connect(empty))
    assert migrate(empty) == [name for name in migrate_names() if name]
    assert migrate(empty) == []
    assert pending(empty) == []
    require_migrated(connect(empty))


def migrate_names() -> list[str]:
    numbered = sorted(f"migrations/{path.name}" for path in (SQL / "migrations").glob("*.sql"))
    first, last = ["functions", "views", "rollups"], ["tenants", "grants"]
    others = sorted({path.stem for path in (SQL / "repeatable").glob("*.sql")} - {*first, *last})
    return [*numbered, *(f"repeatable/{name}.sql" for name in (*first, *others, *last))]


def test_two_at_once(empty: Settings) -> None:
    applied: list[list[str]] = []
    threads = [threading.Thread(target=lambda: applied.append(migrate(empty))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(map(len, applied)) == [0, 0, len(migrate_names())]


def test_an_applied_file_that_changed_is_refused(settings: Settings, folder: Path) -> None:
    changed = folder / "migrations" / "0003_pre_create_message_table.sql"
    changed.write_text(changed.read_text() + "\n-- harmless\n")
    with pytest.raises(MigrationError, match=r"0003_pre_create_message_table\.sql was changed after"):
        migrate(settings, sql_dir=folder)


def test_a_database_newer_than_the_code_is_refused(settings: Settings, folder: Path) -> None:
    (folder / "migrations" / "0018_post_store_rollups_in_tables.sql").unlink()
    with pytest.raises(MigrationError, match="a newer release migrated it"):
        migrate(settings, sql_dir=folder)


def test_a_failing_file_leaves_nothing_of_itself(settings: Settings, folder: Path) -> None:
    (folder / "migrations" / "9001_pre_create_good.sql").write_text("CREATE TABLE good (a integer);")
    (folder / "migrations" / "9002_post_create_bad.sql").write_text("CREATE TABLE half (a integer); SELECT 1/0;")
    with pytest.raises(MigrationError, match=r"9002_post_create_bad\.sql failed and was rolled back \(division by zero"):
        migrate(settings, sql_dir=folder)
    assert query(settings, "SELECT to_regclass('good') IS NOT NULL, to_regclass('half') IS NOT NULL") == [(True, False)]
    assert pending(settings, folder) == ["migrations/9002_post_create_bad.sql", "repeatable/grants.sql"]


@pytest.mark.parametrize("name", ["12_pre_create_x.sql", "0042_create_x.sql", "0042_pre_Create.sql"])
def test_file_names_have_a_form(settings: Settings, folder: Path, name: str) -> None:
    (folder / "migrations" / name).write_text("SELECT 1;")
    with pytest.raises(MigrationError, match="NNNN_pre_verb_object"):
        migrate(settings, sql_dir=folder)


def test_every_table_says_what_a_row_is(settings: Settings) -> None:
    rows = query(
        settings,
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v')"
        " AND coalesce(obj_description(oid), '') NOT LIKE 'One row %%' AND relname NOT IN ('geography_columns')"
        " AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = pg_class.oid AND deptype = 'e')",
    )
    assert rows == []


def test_the_reader_reads_and_nothing_else(settings: Settings) -> None:
    connection = connect(settings, "reader")
    with connection.cursor() as cursor:
        for name in (
            "message_named",
            "measurement_named",
            "measurement_by_series",
            "quarantine_named",
            "latest_named",
            "ledger",
            "kafka_offset",
            "accounting_1h",
        ):
            cursor.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(name)))
        connection.rollback()
        cursor.execute("SET default_transaction_read_only = off")
        connection.commit()
        for statement in ("INSERT INTO project VALUES ('t', 'p')", "DELETE FROM message", "CREATE TABLE mine (a integer)"):
            with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                cursor.execute(statement)
            connection.rollback()
    connection.close()


def test_unreachable_and_refused_are_told_apart(settings: Settings) -> None:
    parts = urlsplit(settings.writer_url)
    nobody = parts._replace(netloc=f"iot_writer:wrong@127.0.0.1:{parts.port}").geturl()
    with pytest.raises(DatabaseAccessError, match="IOT_DATABASE_URL"):
        connect(settings.model_copy(update={"database_url": SecretStr(nobody)}))
    with pytest.raises(DatabaseUnreachableError, match="is it running"):
        connect(settings.model_copy(update={"database_url": SecretStr("postgresql://x@127.0.0.1:1/x")}))


def test_a_shard_has_one_holder_at_a_time(settings: Settings) -> None:
    first, second = connect(settings), connect(settings)
    with (
        shard_lock(first, 0, 1),
        shard_lock(second, 1, 1),
        pytest.raises(LockTimeoutError, match="drain-shard-0"),
        shard_lock(second, 0, 0.2),
    ):
        pytest.fail("two holders")
    with shard_lock(second, 0, 0.2):
        second.close()  # a killed process: its locks go with its session
    with shard_lock(first, 0, 5):
        pass
    first.close()
