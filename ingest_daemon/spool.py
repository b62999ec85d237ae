"""The loop's side of the spool: where each entry is, what waits to be written, and what may be deleted."""

import math
from collections.abc import Callable, Iterator
from typing import Protocol

import structlog

from ingest_daemon.inflight import Pending, Place, State
from ingest_daemon.ranges import Ranges
from ingest_daemon.spool_store import Level, Range, Row
from ingest_daemon.spool_thread import Done, Work

READ_ROWS, READ_BYTES = 2000, 8 * 1024 * 1024
WRITE_BYTES = 4 * 1024 * 1024  # of payload in one transaction, well below the least IOT_INGEST_SPOOL_BYTES
OUTSTANDING_ROWS, OUTSTANDING_BYTES = 20_000, 32 * 1024 * 1024
RETRY_SECONDS = 1.0
STALLED_SECONDS = 5.0

log = structlog.get_logger("ingest.spool")


class Disk(Protocol):
    """What of `SpoolThread` is used here."""

    work: Work | None
    since: float

    def submit(self, work: Work) -> None:
        """Begin a round."""

    def poll(self) -> Done | None:
        """The finished round, once."""

    def close(self) -> None:
        """Finish and close."""


class Spool:
    """Entries in the order of their ids, which is the order of arrival:

    deleted | reported by Kafka, or outstanding there, or refused | `cursor` | on disk | `committed` | being written | waiting

    A message that is being written is settled by the commit, never by Kafka's report alone, so that at any kill the rows on
    disk are those that were counted. After `STALLED_SECONDS` without an answer from the disk, Kafka's report settles the message.
    If the disk fails, the written ones are withdrawn: they wait again, and Kafka's report settles them as if there were no spool.
    """

    def __init__(self, disk: Disk, last_id: int, level: Level, clock: Callable[[], float]) -> None:
        self._disk = disk
        self._clock = clock
        self._next = last_id + 1
        self.committed = last_id
        self.cursor = 0 if level.entries else last_id
        self.level = level
        self._back_to = math.inf
        self._waiting: list[Pending] = []
        self._outstanding: dict[int, tuple[float, int]] = {}  # id → since when, bytes; in the order of production
        self._outstanding_bytes = 0
        self._refused: set[int] = set()
        self._reported = Ranges()
        self._dead_lettered: set[int] = set()
        self._settled_early: set[int] = set()
        self._left = [0, 0]
        self._write_at = self._read_at = 0.0
        self._write_problem: str | None = None
        self._read_problem: str | None = None

    # -- what the sink asks ------------------------------------------------------------------------------------
    @property
    def unwritable(self) -> bool:
        """Whether the last attempt to write failed."""
        return self._write_problem is not None

    @property
    def problem(self) -> str | None:
        """What is wrong with the disk, and the setting to look at."""
        if self.stalled():
            return "the spool's disk does not answer (IOT_INGEST_STATE_DIR)"
        return self._write_problem or self._read_problem

    @property
    def at_end(self) -> bool:
        """Whether every entry on disk has been handed to Kafka."""
        return self.cursor >= self.committed

    @property
    def working(self) -> bool:
        """Whether the disk has a round under way."""
        return self._disk.work is not None

    @property
    def undeleted(self) -> int:
        """Entries that are in Kafka, but may still be on disk."""
        return self._reported.count

    @property
    def in_doubt(self) -> int:
        """Entries of which a kill may leave open whether they are on disk."""
        return self._reported.count + len(self._settled_early)

    @property
    def outstanding(self) -> int:
        """Entries that Kafka has not reported on."""
        return len(self._outstanding)

    def outstanding_seconds(self) -> float:
        """Age of the oldest of them; 0 if there are none."""
        first = next(iter(self._outstanding.values()), None)
        return self._clock() - first[0] if first else 0.0

    @property
    def room(self) -> int:
        """How many entries may be read and produced now."""
        if self._outstanding_bytes >= OUTSTANDING_BYTES:
            return 0
        return max(0, min(READ_ROWS, OUTSTANDING_ROWS - len(self._outstanding)))

    def stalled(self) -> bool:
        """Whether the disk has not answered for long."""
        return self._disk.work is not None and self._clock() - self._disk.since > STALLED_SECONDS

    def in_memory(self) -> Iterator[Pending]:
        """The messages behind the last entry on disk: being written, then waiting."""
        if self._disk.work is not None:
            yield from self._disk.work.pending
        yield from self._waiting

    def take_left(self) -> tuple[int, int]:
        """Entries whose deletion was committed since the last call: those in Kafka's topic, those in the dead-letter topic."""
        left = self._left
        self._left = [0, 0]
        return left[0], left[1]

    # -- what the sink tells -----------------------------------------------------------------------------------
    def wait(self, pending: Pending) -> None:
        """Write this, after all that waits already."""
        self._waiting.append(pending)

    def wait_only(self, pending: list[Pending]) -> None:
        """Exactly these wait to be written, in this order."""
        self._waiting = pending

    def knows(self, entry: int) -> bool:
        """Whether the entry has been handed on already."""
        return entry in self._outstanding or entry in self._refused or entry in self._reported

    def produced(self, pending: Pending) -> None:
        """An entry was handed to Kafka."""
        self.cursor = max(self.cursor, pending.entry)
        self._hand_out(pending, self._clock())

    def _hand_out(self, pending: Pending, since: float) -> None:
        self._outstanding[pending.entry] = (since, len(pending.value))
        self._outstanding_bytes += len(pending.value)

    def _take_back(self, pending: Pending) -> None:
        self._outstanding_bytes -= self._outstanding.pop(pending.entry, (0.0, 0))[1]
        self._refused.discard(pending.entry)

    def arrived(self, pending: Pending, state: State) -> None:
        """An entry is in Kafka: delete it once it is on disk."""
        self._take_back(pending)
        self._reported.add(pending.entry)
        if state is State.DEAD_LETTERED:
            self._dead_lettered.add(pending.entry)

    def failed(self, pending: Pending) -> None:
        """An entry must be produced again, after `rewind`."""
        self._take_back(pending)
        self._back_to = min(self._back_to, pending.entry - 1)

    def not_produced(self, pending: Pending) -> None:
        """Kafka's client had no room for the entry that was just `produced`."""
        self._take_back(pending)
        self.cursor = pending.entry - 1

    def refused(self, pending: Pending) -> None:
        """An entry is on its way to the dead-letter topic."""
        self._take_back(pending)
        self._refused.add(pending.entry)

    def rewind(self) -> None:
        """Go back to the oldest entry that failed; nothing may be outstanding."""
        self.cursor = int(min(self.cursor, self._back_to))
        self._back_to = math.inf

    # -- rounds of the disk ------------------------------------------------------------------------------------
    def poll(self) -> list[Row]:
        """Serve a finished round; the entries behind `cursor` if it read any."""
        done = self._disk.poll()
        if done is None:
            if self.stalled():
                self._settle_early()
            return []
        now = self._clock()
        work, self.level = done.work, done.level
        if work.pending:
            (self._keep if done.inserted else self._withdraw)(work.pending)
        if done.deleted:
            self._count_deleted(work)
        if work.pending or work.deletes:
            self._note(done.error)
        if work.read_after is not None:
            self._read_problem = done.read_error
            self._read_at = now + RETRY_SECONDS if done.read_error else 0.0
        return done.rows if work.read_after == self.cursor else []

    def _keep(self, pending: list[Pending]) -> None:
        at_end = self.at_end
        self.committed = pending[-1].entry
        for message in pending:
            if not message.state:
                message.state = State.SPOOLED
            if at_end and message.place is not Place.NOWHERE:
                self.cursor = max(self.cursor, message.entry)
            else:
                at_end = False

    def _withdraw(self, pending: list[Pending]) -> None:
        for message in pending:
            entry = message.entry
            self._take_back(message)
            if entry in self._reported:
                self._reported.remove(entry, entry)
                if not message.state:
                    message.state = State.DEAD_LETTERED if entry in self._dead_lettered else State.DELIVERED
                self._dead_lettered.discard(entry)
                self._settled_early.discard(entry)
            message.entry = 0
        self._waiting[:0] = [message for message in pending if not message.state]

    def _count_deleted(self, work: Work) -> None:
        for low, high in work.deletes:
            self._reported.remove(low, high)
            early = [entry for entry in self._settled_early if low <= entry <= high]
            dead = [entry for entry in self._dead_lettered if low <= entry <= high]
            self._settled_early.difference_update(early)
            self._dead_lettered.difference_update(dead)
            counted = len(set(dead).difference(early))
            self._left[0] += high - low + 1 - len(early) - counted
            self._left[1] += counted

    def _settle_early(self) -> None:
        """The disk hangs: what Kafka has by now need not wait for it."""
        for message in self._disk.work.pending if self._disk.work else []:
            if not message.state and message.entry in self._reported:
                message.state = State.DEAD_LETTERED if message.entry in self._dead_lettered else State.DELIVERED
                self._settled_early.add(message.entry)

    def _note(self, error: str | None) -> None:
        self._write_at = self._clock() + RETRY_SECONDS if error else 0.0
        if error and not self._write_problem:
            log.error("spool_unusable", reason=error, waiting=len(self._waiting), entries=self.level.entries)
        elif self._write_problem and not error:
            log.info("spool_usable", entries=self.level.entries)
        self._write_problem = error

    def submit(self, read_rows: int, *, spooling: bool) -> None:
        """Start a round if the disk is free and there is anything to do; unless `spooling` nothing is inserted."""
        if self._disk.work is not None:
            return
        if not spooling:
            self._waiting.clear()
        now = self._clock()
        pending: list[Pending] = []
        deletes: list[Range] = []
        if now >= self._write_at:
            pending = self._enter()
            deletes = list(self._reported.pairs(self.committed))
        if now < self._read_at:
            read_rows = 0
        if pending or deletes or read_rows:
            self._disk.submit(Work(pending, deletes, self.cursor if read_rows else None, read_rows, READ_BYTES))
        elif not self._waiting and not self._reported.count:
            self._write_problem = None  # nothing is left that could not be done

    def _enter(self) -> list[Pending]:
        """Give what waits its entries, as much as goes into one transaction."""
        waiting = [message for message in self._waiting if not message.state]
        size, count = 0, 0
        for count, message in enumerate(waiting, 1):  # noqa: B007
            size += len(message.value)
            if size >= WRITE_BYTES:
                break
        pending, self._waiting = waiting[:count], waiting[count:]
        for entry, message in enumerate(pending, self._next):
            message.entry = entry
            if message.place is Place.KAFKA:
                self._hand_out(message, -math.inf)  # it waited for Kafka in vain
            elif message.place is Place.REFUSED:
                self._refused.add(entry)
        self._next += len(pending)
        return pending

    def close(self) -> None:
        """Finish the round under way, bounded; entries stay."""
        self._disk.close()
