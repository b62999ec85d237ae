"""Checks that the server has a TimescaleDB that keeps its promises, and installs the extension where that is allowed."""

from typing import Final

import psycopg2
from psycopg2.extensions import connection as Connection  # noqa: N812

from iot_platform.database.errors import EditionError

MINIMUM: Final = (2, 19, 1)
"""Earlier ones drop rows on ON CONFLICT into compressed chunks (timescaledb 2.19.1 release notes)."""


def require_timescaledb(connection: Connection) -> str:
    """Make sure that the extension is there and new enough; creates it if missing and allowed. Returns the edition: apache or timescale.

    Raises:
        EditionError: never retry.
    """
    version = _version(connection)
    if version is None:
        _create(connection)
        version = _version(connection) or ""
    if version_numbers(version) < MINIMUM:
        wanted = ".".join(map(str, MINIMUM))
        raise EditionError(
            f"TimescaleDB {version} is too old, {wanted} or newer is needed: upgrade it, then ALTER EXTENSION timescaledb UPDATE"
        )
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('timescaledb.license')")
        row = cursor.fetchone()
    connection.commit()
    edition = str(row[0]) if row else ""
    if edition not in ("apache", "timescale"):
        raise EditionError(f"timescaledb.license is '{edition}'; apache and timescale are known: correct postgresql.conf")
    return edition


def _version(connection: Connection) -> str | None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'")
        row = cursor.fetchone()
    connection.commit()
    return str(row[0]) if row else None


def version_numbers(version: str) -> tuple[int, ...]:
    """Of `2.30.0-dev`: (2, 30, 0)."""
    return tuple(int(part) for part in version.split("-", maxsplit=1)[0].split(".") if part.isdigit())


def _create(connection: Connection) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT default_version FROM pg_available_extensions WHERE name = 'timescaledb'")
        row = cursor.fetchone()
    connection.commit()
    if row is None:
        raise EditionError(
            "this PostgreSQL server has no TimescaleDB: install TimescaleDB 2.19.1 or newer on it, or point IOT_DATABASE_URL elsewhere"
        )
    try:
        with connection.cursor() as cursor:
            cursor.execute("CREATE EXTENSION IF NOT EXISTS timescaledb")
        connection.commit()
    except psycopg2.Error as error:
        message = " ".join(str(error).split())
        raise EditionError(
            f"cannot create the extension timescaledb ({message}): let a superuser run CREATE EXTENSION timescaledb in this database"
            " (and have shared_preload_libraries = 'timescaledb' in postgresql.conf)"
        ) from error
