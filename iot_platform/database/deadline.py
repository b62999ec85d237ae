"""Connections whose calls end: when no answer comes for too long, the socket is shut, and libpq reports a broken connection.

PostgreSQL's own timeouts do not reach us through a half-open link, and TCP only notices a host that is gone, not one (or a proxy before it)
that acknowledges bytes and does nothing.
"""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import IO, Any, Final, TypeVar

import psycopg2
from psycopg2.extensions import connection as Connection  # noqa: N812
from psycopg2.extensions import cursor as Cursor  # noqa: N812

from iot_platform.logs import get_logger

LOOK_SECONDS: Final = 1.0
T = TypeVar("T")

log = get_logger(__name__)


class Wait:
    """One call that waits for PostgreSQL."""

    def __init__(self, descriptor: int, seconds: float) -> None:
        self.descriptor = descriptor
        self.seconds = seconds
        self.expired = False
        self.progress()

    def progress(self) -> None:
        """The deadline counts from now."""
        self.ends_at = time.monotonic() + self.seconds


class Watchdog:
    """One thread per process that looks every second for waits that are over. Idle while there is no wait."""

    def __init__(self) -> None:
        self._waits: set[Wait] = set()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    @contextlib.contextmanager
    def watch(self, descriptor: int, seconds: float) -> Iterator[Wait]:
        """Shut the socket unless the block ends, or makes progress, within so many seconds."""
        wait = Wait(descriptor, seconds)
        with self._changed:
            self._waits.add(wait)
            if self._thread is None or not self._thread.is_alive():  # a fork leaves it behind
                self._thread = threading.Thread(target=self._run, name="database-deadlines", daemon=True)
                self._thread.start()
            elif len(self._waits) == 1:
                self._changed.notify()
        try:
            yield wait
        finally:
            with self._changed:  # under the lock: afterwards the descriptor may be another one's
                self._waits.discard(wait)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waits:
                    self._changed.wait()
                now = time.monotonic()
                for wait in self._waits:
                    if now >= wait.ends_at and not wait.expired:
                        wait.expired = True
                        _shut(wait.descriptor)
            time.sleep(LOOK_SECONDS)


def _shut(descriptor: int) -> None:
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as copy:
        copy.shutdown(socket.SHUT_RDWR)


_watchdog: Final = Watchdog()


class BoundedConnection(Connection):
    """Raises OperationalError when a call gets no answer for `answer_seconds` (None: waits for ever, as libpq does)."""

    answer_seconds: float | None = None

    def commit(self) -> None:
        """See psycopg2; may leave the transaction in doubt."""
        self.bounded(lambda _: super(BoundedConnection, self).commit())

    def rollback(self) -> None:
        """See psycopg2."""
        self.bounded(lambda _: super(BoundedConnection, self).rollback())

    def bounded(self, call: Callable[[Wait | None], T]) -> T:
        """Run a call that waits for PostgreSQL."""
        if self.answer_seconds is None or self.closed:
            return call(None)
        with _watchdog.watch(self.fileno(), self.answer_seconds) as wait:
            try:
                return call(wait)
            except psycopg2.Error as error:
                if not wait.expired:
                    raise
                log.warning("no answer from PostgreSQL, connection given up", seconds=self.answer_seconds, setting="IOT_DATABASE_URL")
                raise psycopg2.OperationalError(
                    f"no answer for {self.answer_seconds:g} s: the server or the network to it is gone (IOT_DATABASE_URL)"
                ) from error


class BoundedCursor(Cursor):
    """The cursor of a BoundedConnection."""

    connection: BoundedConnection

    def execute(self, query: Any, parameters: Any = None) -> None:
        """See psycopg2."""
        self.connection.bounded(lambda _: super(BoundedCursor, self).execute(query, parameters))

    def copy_expert(self, sql: Any, file: IO[bytes], size: int = 8192) -> None:  # type: ignore[override]
        """See psycopg2. The deadline is that of each `size` bytes."""
        self.connection.bounded(lambda wait: super(BoundedCursor, self).copy_expert(sql, _Progress(file, wait) if wait else file, size))


class _Progress:
    """A file that tells the watchdog whenever COPY takes or brings another piece."""

    def __init__(self, file: IO[bytes], wait: Wait) -> None:
        self._file, self._wait = file, wait

    def read(self, size: int) -> bytes:
        self._wait.progress()
        return self._file.read(size)

    def write(self, data: bytes) -> int:
        self._wait.progress()
        return self._file.write(data)
