"""Applies sql/ to the database: numbered files once, repeatable files when they changed, recorded in schema_migration."""

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psycopg2
from psycopg2.errors import DeadlockDetected, LockNotAvailable
from psycopg2.extensions import connection as Connection  # noqa: N812
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_delay
from tenacity.wait import wait_random

from iot_platform.database import baseline
from iot_platform.database.connection import connect
from iot_platform.database.edition import require_timescaledb
from iot_platform.database.errors import MigrationError, SchemaError
from iot_platform.database.locks import MIGRATION, advisory_lock
from iot_platform.database.tenant_sessions import IN_THE_WAY_SECONDS, end_tenant_sessions
from iot_platform.files import SQL as SQL_DIR
from iot_platform.settings import Settings

FILE_NAME: Final = re.compile(r"\d{4}_(pre|post)_[a-z0-9]+(_[a-z0-9]+)+\.sql")
LOCK_WAIT_SECONDS: Final = 600.0
LOCK_TIMEOUT: Final = "2500ms"
"""Of one try. Readers and writers of a table that a file must lock wait behind it."""
LOCK_TRIES_SECONDS: Final = 120.0
PAUSE_SECONDS: Final = (0.3, 1.0)
"""Between tries: those who waited go on."""
GRANTS: Final = "grants.sql"

LEDGER: Final = """
CREATE TABLE IF NOT EXISTS schema_migration (
    name text PRIMARY KEY,
    checksum text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE schema_migration IS 'One row is one file of sql/ as it was applied (numbered files once, repeatable ones last time).';
"""


@dataclass(frozen=True)
class MigrationFile:
    """A file of sql/. `name` is its path below sql/; `checksum` the SHA-256 of its bytes (and for repeatable ones, of TimescaleDB's version
    and edition; for grants, also of the roles that exist and all other files: what is new has its rights then)."""

    name: str
    sql: str
    checksum: str

    @property
    def repeatable(self) -> bool:
        """Whether the file is applied again when it changes."""
        return self.name.startswith("repeatable/")


def migrate(settings: Settings, on_progress: Callable[[str], None] = lambda _: None, sql_dir: Path = SQL_DIR) -> list[str]:
    """Bring the database up to this code, as its owner, and return the names of the applied files. Idempotent; of two at once the
    second waits (up to 10 minutes) and finds nothing to do. Each file is one transaction: a failure leaves the files before it. A file that
    does not get its locks is tried again for two minutes; tenants' transactions that are in its way are ended. A database made by the first
    chain of migrations is taken over (see baseline). One that a newer release migrated is left as it is, its functions and views too: the
    way back to this release.

    Raises:
        EditionError, MigrationError: see there. Never retry.
    """
    connection = connect(settings, "admin", "iot-migrate")
    try:
        with advisory_lock(connection, MIGRATION, LOCK_WAIT_SECONDS, lambda: on_progress("waiting for another migration to finish")):
            require_timescaledb(connection)
            _set_lock_timeout(connection)
            _execute(connection, LEDGER, "schema_migration")
            connection.commit()
            applied: list[str] = []
            while todo := _pending(connection, sql_dir):  # a numbered file may ask for all of repeatable/ once more
                for number, file in enumerate(todo, 1):
                    on_progress(f"{number}/{len(todo)} {file.name}")
                    _apply_when_free(connection, file, sql_dir, on_progress)
                applied += [file.name for file in todo if file.name not in applied]
            if newer := _newer(_applied(connection), sql_dir):
                on_progress(f"a newer release migrated the database (it has {newer[0]}), which this one works with: left as it is")
            return applied
    finally:
        connection.close()


def pending(settings: Settings, sql_dir: Path = SQL_DIR) -> list[str]:
    """Names of the files that `migrate` would apply; changes nothing. None where a newer release migrated.

    Raises:
        MigrationError: an applied file changed, or one of a newer release is a `post` file.
    """
    connection = connect(settings, "admin", "iot-migrate")
    try:
        return [file.name for file in _pending(connection, sql_dir)]
    finally:
        connection.close()


def newer(settings: Settings, sql_dir: Path = SQL_DIR) -> list[str]:
    """Numbered files that a newer release applied and this one does not have."""
    connection = connect(settings, "admin", "iot-migrate")
    try:
        return _newer(_applied(connection), sql_dir)
    finally:
        connection.close()


def require_migrated(connection: Connection, sql_dir: Path = SQL_DIR) -> None:
    """Check that every numbered file is applied; any role that may read schema_migration.

    Raises:
        SchemaError: some are not. Never retry.
    """
    applied = _applied(connection)
    connection.rollback()
    missing = [path.name for path in sorted((sql_dir / "migrations").glob("*.sql")) if f"migrations/{path.name}" not in applied]
    if missing:
        raise SchemaError(f"the database lacks {len(missing)} migration(s), first {missing[0]}: run `iot migrate`")


def read_files(sql_dir: Path, timescaledb: str = "", roles: str = "") -> list[MigrationFile]:
    """All files in order of application: numbered ones by number, then functions, views, rollups, the rest by name, grants.

    Raises:
        MigrationError: a file name breaks the pattern, or two share a number.
    """
    numbered = sorted((sql_dir / "migrations").glob("*.sql"))
    numbers = [path.name[:4] for path in numbered]
    for path in numbered:
        if not FILE_NAME.fullmatch(path.name):
            raise MigrationError(f"sql/migrations/{path.name}: a migration is called NNNN_pre_verb_object.sql or NNNN_post_verb_object.sql")
        if numbers.count(path.name[:4]) > 1:
            raise MigrationError(f"sql/migrations: number {path.name[:4]} is used twice; give the newer file the next free number")
    order = {"functions.sql": 0, "views.sql": 1, "rollups.sql": 2, "tenants.sql": 8, GRANTS: 9}
    repeatable = sorted((sql_dir / "repeatable").glob("*.sql"), key=lambda path: (order.get(path.name, 5), path.name))
    files: list[MigrationFile] = []
    for path in (*numbered, *repeatable):
        salt = "" if path in numbered else timescaledb
        if path.name == GRANTS:
            salt = "".join([salt, roles, *(file.checksum for file in files)])
        files.append(_read(path, sql_dir, salt))
    return files


def _read(path: Path, sql_dir: Path, salt: str) -> MigrationFile:
    data = path.read_bytes()
    return MigrationFile(str(path.relative_to(sql_dir)), data.decode(), hashlib.sha256(data + salt.encode()).hexdigest())


def _pending(connection: Connection, sql_dir: Path) -> list[MigrationFile]:
    applied = _applied(connection)
    files = read_files(sql_dir, _timescaledb(connection), _roles(connection))
    connection.rollback()
    if baseline.must_take_over(applied, sql_dir):
        return [_read(sql_dir / baseline.FILE, sql_dir, ""), *(file for file in files if not baseline.stands_for(file.name))]
    newer = _newer(applied, sql_dir)
    lacking = [file.name for file in files if file.name not in applied and not file.repeatable]
    for name in newer:
        if "_post_" in name or lacking:
            raise MigrationError(
                f"the database has {name}, which this version does not know: a newer release migrated it"
                + (f", but never applied {lacking[0]}" if lacking else " and took away what older ones may need")
                + "; upgrade this one, or restore a backup of before"
            )
    if newer:
        return []  # the newer release's functions and views work for the one before, not these for the newer one's tables
    todo = []
    for file in files:
        if applied.get(file.name) == file.checksum:
            continue
        if file.name in applied and not file.repeatable:
            raise MigrationError(
                f"sql/{file.name} was changed after it had been applied: restore it and write a new migration with the change"
            )
        todo.append(file)
    # Creating the roles (a numbered file) changes the salt of grants.sql: it is applied last and recorded with the new one, see _apply.
    return todo


def _newer(applied: Mapping[str, str], sql_dir: Path) -> list[str]:
    """Numbered files in the database that this release does not have."""
    known = {f"migrations/{path.name}" for path in (sql_dir / "migrations").glob("*.sql")} | {baseline.FILE}
    return sorted(name for name in applied if name not in known and not name.startswith("repeatable/"))


def _applied(connection: Connection) -> dict[str, str]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('public.schema_migration') IS NOT NULL")
        row = cursor.fetchone()
        if row is None or not row[0]:
            return {}
        cursor.execute("SELECT name, checksum FROM schema_migration")
        return dict(cursor.fetchall())


def _timescaledb(connection: Connection) -> str:
    """Version and edition: functions of repeatable/ are made for these, and made again after ALTER EXTENSION UPDATE or a switch."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT extversion || ' ' || current_setting('timescaledb.license') FROM pg_extension WHERE extname = 'timescaledb'")
        row = cursor.fetchone()
    return str(row[0] if row else "")


def _roles(connection: Connection) -> str:
    """The group roles that exist, and PUBLIC while it may do something in the database (a copy or a restored dump lacks such rights)."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT string_agg(rolname, ',' ORDER BY rolname) FROM ("
            " SELECT rolname FROM pg_roles WHERE rolname IN ('iot_writer', 'iot_reader', 'iot_tenant', 'iot_console')"
            " UNION ALL SELECT 'public' WHERE has_database_privilege('public', current_database(), 'CONNECT, TEMPORARY')) r"
        )
        row = cursor.fetchone()
    return str(row[0] if row else "")


def _set_lock_timeout(connection: Connection) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config('lock_timeout', %s, false)", (LOCK_TIMEOUT,))
    connection.commit()


def _apply_when_free(connection: Connection, file: MigrationFile, sql_dir: Path, on_progress: Callable[[str], None]) -> None:
    def make_way(state: RetryCallState) -> None:
        if state.attempt_number > 1:  # just before the try: they can't come back before it stands in the queue
            end_tenant_sessions(connection, IN_THE_WAY_SECONDS)

    Retrying(
        retry=retry_if_exception(lambda error: isinstance(error.__cause__, (LockNotAvailable, DeadlockDetected))),
        stop=stop_after_delay(LOCK_TRIES_SECONDS),
        wait=wait_random(*PAUSE_SECONDS),
        before=make_way,
        before_sleep=lambda _: on_progress(f"{file.name} waits for locks that others hold"),
        reraise=True,
    )(_apply, connection, file, sql_dir)


def _apply(connection: Connection, file: MigrationFile, sql_dir: Path) -> None:
    _execute(connection, file.sql, file.name)
    checksum = file.checksum
    if file.name == baseline.FILE:
        with connection.cursor() as cursor:
            replaced = {other.name: other.checksum for other in read_files(sql_dir) if baseline.stands_for(other.name)}
            baseline.record(cursor, replaced, sql_dir)
    if file.name == f"repeatable/{GRANTS}":
        checksum = read_files(sql_dir, _timescaledb(connection), _roles(connection))[-1].checksum
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO schema_migration (name, checksum) VALUES (%s, %s)"
            " ON CONFLICT (name) DO UPDATE SET checksum = excluded.checksum, applied_at = now()",
            (file.name, checksum),
        )
    connection.commit()


def _execute(connection: Connection, sql: str, name: str) -> None:
    try:
        with connection.cursor() as cursor:
            cursor.execute(sql)
    except psycopg2.Error as error:
        if not connection.closed:
            connection.rollback()
        message = " ".join(str(error).split())
        hint = ": migrations run as the owner of the database; set IOT_DATABASE_ADMIN_URL" if error.pgcode == "42501" else ""
        raise MigrationError(f"sql/{name} failed and was rolled back ({message}){hint}") from error
