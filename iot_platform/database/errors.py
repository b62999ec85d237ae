"""Errors of the database package; each message names the cause and the remedy."""

import psycopg2
from psycopg2.extensions import connection as Connection  # noqa: N812


class DatabaseError(Exception):
    """Root of this package's errors."""


class DatabaseUnreachableError(DatabaseError):
    """No connection could be made. Retry."""


class DatabaseAccessError(DatabaseError):
    """The server refuses the credentials, the database or the role. Never retry."""


class EditionError(DatabaseError):
    """TimescaleDB is missing, too old, or may not be installed by this role. Never retry."""


class MigrationError(DatabaseError):
    """The migration files and the ledger of the database contradict each other, or a file failed. Never retry."""


class SchemaError(DatabaseError):
    """The database lacks migrations that this code needs. Never retry."""


class LockTimeoutError(DatabaseError):
    """Another process held the lock for the whole waiting time. Retry."""


def is_transient(error: psycopg2.Error, connection: Connection | None) -> bool:
    """Whether the same transaction may succeed on a new connection: broken connections, deadlocks, timeouts, shutdowns, failover, full
    disks. Everything else (a constraint, a missing table, a bug) would fail again."""
    if isinstance(error, psycopg2.OperationalError | psycopg2.InterfaceError):
        return True
    if error.pgcode in ("25006", "55P03", "57014"):  # read-only after a failover, lock timeout, statement timeout
        return True
    return error.pgcode is None and (connection is None or connection.closed != 0)
