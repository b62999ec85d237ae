"""Errors of the database package; each message names the cause and the remedy."""


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
