"""Connections to the database: a few for each login, kept warm, bounded in all, and cleaned between two borrowers."""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import psycopg

from iot_platform.api.problems import Problem
from iot_platform.logs import get_logger

log = get_logger(__name__)
Connection = psycopg.AsyncConnection[tuple[Any, ...]]

IDLE_SECONDS: Final = 300.0
"""A connection that nobody wanted for so long is closed."""
DOUBT_SECONDS: Final = 5.0
"""One that was idle for so long is asked whether it still works."""
WAIT_SECONDS: Final = 5.0


class Pools:
    """Of all logins. At most `each` connections a login and `most` in all: where another login needs one, the least used is closed.

    A borrower gets a session as new: DISCARD ALL has taken role, settings, LISTEN, prepared statements and temporary tables of the one
    before. After an error the connection is closed instead. Not thread-safe; belongs to one event loop.
    """

    def __init__(
        self, connect: Callable[[str], Awaitable[Connection]], *, each: int, most: int, wait_seconds: float = WAIT_SECONDS
    ) -> None:
        self._connect = connect
        self._each, self._most, self._wait_seconds = each, most, wait_seconds
        self._idle: dict[str, list[tuple[float, Connection]]] = defaultdict(list)
        self._open: Counter[str] = Counter()
        self._freed = asyncio.Event()

    @property
    def open(self) -> int:
        """Connections that are open, or being opened."""
        return self._open.total()

    @asynccontextmanager
    async def session(self, login: str) -> AsyncIterator[Connection]:
        """A session of this login, autocommit.

        Raises:
            Problem: too many read at once, the database does not answer, or it took too long. Retry.
        """
        connection = await self._take(login)
        whole = False
        try:
            yield connection
            whole = await _cleaned(connection)
        except psycopg.errors.QueryCanceled as error:
            raise Problem("too-slow", "the database took too long: narrow the time range", headers={"Retry-After": "5"}) from error
        except psycopg.OperationalError as error:
            raise unavailable(error) from error
        except (psycopg.DataError, UnicodeEncodeError) as error:  # U+0000, half a character, a number beyond the column's type
            raise Problem("invalid-parameters", "a parameter holds what the database cannot take") from error
        finally:
            if whole:
                self._idle[login].append((time.monotonic(), connection))
            else:
                self._close(login, connection)
            self._wake()

    async def close_idle(self, idle_seconds: float = IDLE_SECONDS) -> None:
        """Close what nobody has wanted for so long."""
        for login, found in list(self._idle.items()):
            kept = [(since, connection) for since, connection in found if time.monotonic() - since < idle_seconds]
            for item in found:
                if item not in kept:
                    self._close(login, item[1])
            self._idle[login] = kept
        self._wake()

    async def _take(self, login: str) -> Connection:
        deadline = time.monotonic() + self._wait_seconds
        while True:
            while found := self._idle[login]:
                since, connection = found.pop()
                works = time.monotonic() - since < DOUBT_SECONDS
                try:
                    works = works or await _works(connection)
                finally:
                    if not works:
                        self._close(login, connection)
                if works:
                    return connection
            if self._open[login] < self._each and (self.open < self._most or self._close_least_used()):
                return await self._new(login)
            try:
                await asyncio.wait_for(self._freed.wait(), deadline - time.monotonic())
            except TimeoutError:
                raise Problem("busy", "too many are reading at once: try again", headers={"Retry-After": "2"}) from None

    async def _new(self, login: str) -> Connection:
        self._open[login] += 1  # before the first await, so that no other task takes the place
        try:
            return await self._connect(login)
        except BaseException as error:
            self._open[login] -= 1
            self._wake()
            if isinstance(error, psycopg.OperationalError):
                raise unavailable(error) from error
            raise

    def _close_least_used(self) -> bool:
        """Close the connection that was idle for longest, of any login; False: none is idle."""
        oldest = min(((found[0], login) for login, found in self._idle.items() if found), key=lambda item: item[0][0], default=None)
        if oldest is None:
            return False
        (item, login) = oldest
        self._idle[login].remove(item)
        self._close(login, item[1])
        return True

    def _close(self, login: str, connection: Connection) -> None:
        """At once, without an await: also while the task is being cancelled."""
        with suppress(psycopg.Error):
            connection.pgconn.finish()
        self._open[login] -= 1

    def _wake(self) -> None:
        self._freed.set()
        self._freed = asyncio.Event()


async def _cleaned(connection: Connection) -> bool:
    """Whether the next borrower can have it. What this one read stays right if not."""
    try:
        await connection.execute("DISCARD ALL")
    except psycopg.Error:
        return False
    return True


async def _works(connection: Connection) -> bool:
    try:
        await connection.execute("SELECT 1")
    except psycopg.Error:
        return False
    return True


def unavailable(error: Exception) -> Problem:
    """What the asker is told; the log has what the database said."""
    log.warning("database does not answer", error=" ".join(str(error).split()))
    return Problem("database-unavailable", headers={"Retry-After": "5"})
