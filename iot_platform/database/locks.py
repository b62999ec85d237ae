"""Advisory locks: who migrates, and who drains a shard. They end with their session, so a killed process frees them."""

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

import psycopg2
from psycopg2.extensions import connection as Connection  # noqa: N812

from iot_platform.database.errors import LockTimeoutError

MIGRATION: Final = "migration"
POLL_SECONDS: Final = 0.05


def lock_key(name: str) -> int:
    """The bigint of an advisory lock name; locks of different databases never meet."""
    return int.from_bytes(hashlib.sha256(f"iot-platform:{name}".encode()).digest()[:8], "big", signed=True)


@contextmanager
def advisory_lock(
    connection: Connection,
    name: str,
    timeout: float,
    on_wait: Callable[[], None] | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Iterator[None]:
    """Hold a session lock for the block. Polls (50 ms) instead of waiting inside PostgreSQL, so that it can be cancelled. Commits
    on the connection, so use one outside any transaction; what a block that fails has not committed is rolled back.

    Raises:
        LockTimeoutError: not free within `timeout` seconds, or `cancelled()` said stop. Retry.
    """
    key, deadline, reported = lock_key(name), time.monotonic() + timeout, False
    while not _call(connection, "SELECT pg_try_advisory_lock(%s)", key):
        if cancelled() or time.monotonic() >= deadline:
            raise LockTimeoutError(f"lock '{name}' is held by {holder(connection, name)}; gave up after {timeout:g} s")
        if on_wait is not None and not reported:
            on_wait()
            reported = True
        time.sleep(POLL_SECONDS)
    try:
        yield
    except BaseException:
        if not connection.closed:
            with suppress(psycopg2.Error):
                connection.rollback()
        raise
    finally:
        if not connection.closed:
            try:
                _call(connection, "SELECT pg_advisory_unlock(%s)", key)
            except psycopg2.Error:
                if not connection.closed:  # else the lock went with its session
                    raise


@contextmanager
def shard_lock(
    connection: Connection,
    shard: int,
    timeout: float,
    on_wait: Callable[[], None] | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Iterator[None]:
    """The hand-off lock of drain shard `shard`: at most one drain works on it. See advisory_lock."""
    with advisory_lock(connection, f"drain-shard-{shard}", timeout, on_wait, cancelled):
        yield


def holder(connection: Connection, name: str) -> str:
    """Who holds a lock, for messages."""
    key = lock_key(name)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT a.pid, a.application_name FROM pg_locks l JOIN pg_stat_activity a USING (pid)"
            " WHERE l.locktype = 'advisory' AND l.granted"
            " AND l.classid = %s AND l.objid = %s AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())",
            ((key >> 32) & 0xFFFFFFFF, key & 0xFFFFFFFF),
        )
        row = cursor.fetchone()
    connection.commit()
    return f"'{row[1]}' (PostgreSQL process {row[0]})" if row else "another session"


def _call(connection: Connection, query: str, key: int) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(query, (key,))
        row = cursor.fetchone()
    connection.commit()
    return bool(row and row[0])


def shard_is_locked(connection: Connection, shard: int) -> bool:
    """Whether anybody holds the hand-off lock of the shard now. See is_locked."""
    return is_locked(connection, f"drain-shard-{shard}")


def is_locked(connection: Connection, name: str) -> bool:
    """Whether anybody holds an advisory lock now. Does not take it; commits on the connection."""
    key = lock_key(name)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted AND classid = %s AND objid = %s"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))",
            ((key >> 32) & 0xFFFFFFFF, key & 0xFFFFFFFF),
        )
        row = cursor.fetchone()
    connection.commit()
    return bool(row and row[0])
