"""The one thread that touches the spool's file, so that a slow or dead disk never stops the loop."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Protocol

import structlog

from ingest_daemon.errors import SpoolError
from ingest_daemon.inflight import Pending
from ingest_daemon.spool_store import NOTHING, Level, Range, Row

CLOSE_SECONDS = 5.0

log = structlog.get_logger("ingest.spool")


class Store(Protocol):
    """What of `SpoolStore` is used here."""

    level: Level
    last_id: int

    def write(self, inserts: list[Row], deletes: list[Range]) -> None:
        """Add and delete entries; raises SpoolError."""

    def read(self, after: int, rows: int, size_bytes: int) -> list[Row]:
        """The next entries behind `after`; raises SpoolError."""

    def close(self) -> None:
        """Close the file."""


@dataclass(frozen=True, slots=True)
class Work:
    """One round: insert and delete in one transaction, then read. `pending` have the ids that they shall get."""

    pending: list[Pending] = field(default_factory=list)
    deletes: list[Range] = field(default_factory=list)
    read_after: int | None = None
    read_rows: int = 0
    read_bytes: int = 0


@dataclass(slots=True)
class Done:
    """What became of a round; inserts and deletes may fail separately."""

    work: Work
    inserted: bool = False
    deleted: bool = False
    rows: list[Row] = field(default_factory=list)
    error: str | None = None
    read_error: str | None = None
    level: Level = NOTHING


def perform(store: Store, work: Work) -> Done:
    """Do one round; blocks."""
    done = Done(work)
    inserts = [(p.entry, p.connection.number, p.sequence, p.key, p.header, p.value) for p in work.pending]
    if inserts or work.deletes:
        done.error = _write(store, done, inserts, work.deletes)
        if done.error is not None and inserts and work.deletes:
            # Deletions make room: an insertion that does not fit must not hold them up, nor they it.
            errors = [_write(store, done, [], work.deletes), _write(store, done, inserts, [])]
            done.error = errors[1] or errors[0]
    if work.read_after is not None:
        try:
            done.rows = store.read(work.read_after, work.read_rows, work.read_bytes)
        except SpoolError as error:
            done.read_error = str(error)
    done.level = store.level
    return done


def _write(store: Store, done: Done, inserts: list[Row], deletes: list[Range]) -> str | None:
    try:
        store.write(inserts, deletes)
    except SpoolError as error:
        return str(error)
    done.inserted |= bool(inserts)
    done.deleted |= bool(deletes)
    return None


class SpoolThread:
    """Does one round at a time; what gathers meanwhile goes into the next (group commit). `poll` never blocks."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._todo: SimpleQueue[Work | None] = SimpleQueue()
        self._done: SimpleQueue[Done | Exception] = SimpleQueue()
        self.work: Work | None = None
        self.since = 0.0
        self._thread = threading.Thread(target=self._run, name="spool", daemon=True)
        self._thread.start()

    def submit(self, work: Work) -> None:
        """Begin a round; none may be under way."""
        self.work = work
        self.since = self._clock()
        self._todo.put(work)

    def poll(self) -> Done | None:
        """The finished round, once. Raises what was no SpoolError: an error of the program."""
        if self.work is None or self._done.empty():
            return None
        done = self._done.get()
        self.work = None
        if isinstance(done, Exception):
            raise done
        return done

    def close(self) -> None:
        """Finish the round under way (bounded) and close the file."""
        self._todo.put(None)
        self._thread.join(CLOSE_SECONDS)

    # -- the thread --------------------------------------------------------------------------------------------
    def _run(self) -> None:
        while (work := self._todo.get()) is not None:
            try:
                self._done.put(perform(self._store, work))
            except Exception as error:  # handed to the loop, which is the process's boundary
                self._done.put(error)
        self._store.close()
