"""Compresses what is due, one chunk per transaction, oldest first; may be stopped and repeated at any point."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal

import psycopg2
from psycopg2.extensions import connection as Connection  # noqa: N812

from iot_platform.compression.chunks import Chunk, read_chunks
from iot_platform.database import connect
from iot_platform.database.capabilities import Capabilities, read_capabilities
from iot_platform.database.tenant_sessions import make_way
from iot_platform.settings import Settings

CHUNK_SECONDS: Final = 1800
"""Longest compression of one chunk: about 4 million rows a minute, so a day of 1,000 messages a second has time enough."""
PAUSE_SECONDS: Final = 0.2
"""Between chunks, so that sessions that wait for our locks get them."""


@dataclass(frozen=True)
class Done:
    """One compressed chunk."""

    table: str
    name: str
    start: datetime
    end: datetime
    action: Literal["compress", "recompress"]
    rows: int | None
    bytes_before: int
    bytes_after: int
    seconds: float


@dataclass
class Result:
    """What a run did. Where compression is not available, or in a dry run, `done` is empty and `due` is what there was to do."""

    capabilities: Capabilities
    due: list[Chunk]
    done: list[Done] = field(default_factory=list)
    postponed: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def available(self) -> bool:
        """Whether this database can compress."""
        return self.capabilities.has("compression")

    @property
    def bytes_before(self) -> int:
        """Of the chunks in `done`."""
        return sum(item.bytes_before for item in self.done)

    @property
    def bytes_after(self) -> int:
        """Of the chunks in `done`."""
        return sum(item.bytes_after for item in self.done)


def compress(
    settings: Settings,
    *,
    table: str | None = None,
    chunk: str | None = None,
    dry_run: bool = False,
    limit: int | None = None,
    on_done: Callable[[Done, int], None] = lambda _, __: None,
) -> Result:
    """Compress chunks that are due (of one table; one `chunk`, by its name; at most `limit`). A chunk that writers or other
    maintenance keep locked for 10 seconds is postponed to the next run.

    Raises:
        DatabaseError, psycopg2.Error: retry; what was done stays done.
    """
    started = time.monotonic()
    connection = connect(settings, "writer", "iot-compression")
    try:
        due = [found for found in read_chunks(connection) if found.due and table in (None, found.table) and chunk in (None, found.name)]
        result = Result(read_capabilities(connection), due[:limit])
        if result.available and not dry_run:
            _allow_long_statements(connection)
            for number, item in enumerate(result.due):
                if number:
                    time.sleep(PAUSE_SECONDS)
                _compress_one(connection, item, result, on_done)
        result.seconds = time.monotonic() - started
        return result
    finally:
        connection.close()


def _compress_one(
    connection: Connection, chunk: Chunk, result: Result, on_done: Callable[[Done, int], None], *, again: bool = True
) -> None:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT compression_prepare(%s)", (chunk.name,))
            connection.commit()
            cursor.execute(
                "SELECT table_name, chunk_name, range_start, range_end, action, rows, bytes_before, bytes_after, seconds"
                " FROM compression_apply(%s)",
                (chunk.name,),
            )
            row = cursor.fetchone()
        connection.commit()
    except (psycopg2.errors.LockNotAvailable, psycopg2.errors.DeadlockDetected) as error:
        connection.rollback()
        if again and make_way(connection, error):
            _compress_one(connection, chunk, result, on_done, again=False)
        else:
            result.postponed.append(chunk.name)
        return
    if row is not None:
        result.done.append(Done(*row))
        on_done(result.done[-1], len(result.due))


def _allow_long_statements(connection: Connection) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config('statement_timeout', %s, false)", (f"{CHUNK_SECONDS}s",))
    connection.commit()
    if hasattr(connection, "answer_seconds"):
        connection.answer_seconds = CHUNK_SECONDS + 60.0
