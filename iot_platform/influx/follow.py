"""A shift for one sink: follows the ledger, partition by partition and in order, then replays, deletions of tenants and open backfills."""

import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from typing import Final

import psycopg2
from psycopg2.extensions import connection as Connection  # noqa: N812
from psycopg2.extensions import cursor as Cursor  # noqa: N812

from iot_platform.database import connect
from iot_platform.database.errors import DatabaseUnreachableError
from iot_platform.database.migrate import require_migrated
from iot_platform.influx import backfill, stored
from iot_platform.influx.books import Batch, Books, Position, Range, ReplayBatch
from iot_platform.influx.client import InfluxClient
from iot_platform.influx.errors import InfluxBusyError, InfluxError, InfluxRefusedError
from iot_platform.influx.keys import KeyReader, Touched
from iot_platform.influx.locks import writing
from iot_platform.influx.sender import Sender
from iot_platform.influx.shipping import Shipped, Shipper
from iot_platform.influx.target import Target
from iot_platform.logs import get_logger
from iot_platform.settings import Settings
from iot_platform.telemetry.partitions import FIRST_IMPORT
from iot_platform.telemetry.replay.selection import Slice

IDLE_SECONDS: Final = 0.5
"""Pause after a look that found nothing."""
HOLD_SECONDS: Final = 5.0
"""How long the sink's lock is held at a time: a backfill waits for it."""
PAUSE_SECONDS: Final = 0.2
"""For so long it is free then; longer than others need to take it."""
MOST_BATCHES: Final = 2_000
"""Of the ledger, read at once."""

log = get_logger(__name__)


@dataclass
class Progress:
    """What a shift did. `ended`: caught_up, time or stopped."""

    records: int = 0
    written: int = 0
    refused: int = 0
    retries: int = 0
    replays: int = 0
    deletions: list[str] = field(default_factory=list)
    partitions: dict[int, int] = field(default_factory=dict)
    seconds: float = 0.0
    ended: str = ""


class Follower:
    """One shift. May be killed at any instruction and repeated: offsets move when InfluxDB has answered 204, and repeating is harmless."""

    def __init__(
        self,
        settings: Settings,
        target: Target,
        *,
        seconds: float | None = None,
        stop: threading.Event | None = None,
        on_retry: Callable[[str], None] = lambda _: None,
        name: str = "",
    ) -> None:
        """`seconds` None: until it has caught up; else for so long, unless nothing comes for drain_idle_seconds."""
        self.progress = Progress()
        self._settings = settings
        self._target = target
        self._stop = stop or threading.Event()
        self._until_caught_up = seconds is None
        self._until = float("inf") if seconds is None else time.monotonic() + seconds
        self._on_retry = on_retry
        self._name = f"iot-influx {target.name} {name}"[:63]

    def run(self) -> Progress:
        """Work until the shift is over. Blocks.

        Raises:
            InfluxConfigError: a person has to change something; the message names it.
            InfluxUnavailableError: the server did not take what it was sent until the end of the shift. Retry, for ever.
            InfluxBusyError: another run works for this sink. Retry.
            DatabaseError: the database does not answer. Retry.
        """
        started = time.monotonic()
        try:
            with (
                closing(connect(self._settings, "writer", self._name)) as connection,
                closing(connect(self._settings, "writer", f"{self._name} reads"[:63])) as reading,
                InfluxClient(self._target) as client,
            ):
                require_migrated(connection)
                books = Books(connection, self._target.name, self._settings.kafka_topic)
                books.open()
                sender = Sender(client, until=self._until, stopped=self._stop.is_set, on_retry=lambda text: self._retried(books, text))
                try:
                    keys = KeyReader(self._settings, reading, connection, f"influx {books.sink}")
                    with closing(sender):
                        self._work(_Work(connection, books, keys, Shipper(self._settings, connection, books, client, sender)))
                except InfluxError as error:
                    if not connection.closed and not isinstance(error, InfluxBusyError):
                        connection.rollback()
                        books.trouble(str(error), 0)
                    raise
        except psycopg2.Error as error:
            raise DatabaseUnreachableError(f"the database broke off: {' '.join(str(error).split())}") from error
        finally:
            self.progress.seconds = time.monotonic() - started
        return self.progress

    def _retried(self, books: Books, text: str) -> None:
        self.progress.retries += 1
        log.warning("influx retries", sink=self._target.name, error=text)
        books.trouble(text, 1)
        self._on_retry(text)

    def _work(self, work: "_Work") -> None:
        busy_at = time.monotonic()
        with closing(work):
            while True:
                wait = max(0.0, min(60.0, self._until - time.monotonic()))
                with writing(work.connection, self._target.name, wait, self._stop.is_set), work.shipper.settled():
                    idle = self._round(work)
                if self._stop.is_set() or time.monotonic() >= self._until:
                    self.progress.ended = "stopped" if self._stop.is_set() else "time"
                    return
                busy_at = busy_at if idle else time.monotonic()
                if idle and (self._until_caught_up or time.monotonic() - busy_at > self._settings.drain_idle_seconds):
                    self.progress.ended = "caught_up"
                    return
                self._stop.wait(IDLE_SECONDS if idle else PAUSE_SECONDS)

    def _round(self, work: "_Work") -> bool:
        """Everything that is there, for as long as the lock is held; whether nothing was left."""
        deadline = min(time.monotonic() + HOLD_SECONDS, self._until)

        def over() -> bool:
            return time.monotonic() >= deadline or self._stop.is_set()

        work.keys.refresh()
        self._deletions(work)
        moved = True
        while moved:
            moved = False
            for position in work.positions():
                moved |= self._partition(work, position)
                if over():
                    work.flush()
                    return False
        work.flush()
        for batch in work.replays():
            self._replay(work, batch)
            if over():
                return False
        return backfill.advance(work.connection, work.books, work.shipper, over)

    def _partition(self, work: "_Work", position: Position) -> bool:
        """Bring what follows one position, up to a batch's size, on its way; whether there was anything."""
        if not position.is_behind:
            return False
        with work.connection.cursor() as cursor:
            batches = self._gather(work.books.batches(cursor, position, MOST_BATCHES))
        work.connection.rollback()
        if not batches:  # of this log nothing is left: accepted losses, or the next log
            ahead = position.generation < position.committed_generation
            place = (position.generation + 1, 0) if ahead else (position.generation, position.committed_offset)
            work.flush()
            with work.connection.cursor() as cursor:
                work.books.advance(cursor, position, *place)
            work.connection.commit()
            return True
        touched = work.keys.read(_slice_of(position, batches))
        following = position._replace(next_offset=batches[-1].to_offset)

        def done(shipped: Shipped) -> None:
            with work.connection.cursor() as cursor:
                by_time = self._note_missing(work, cursor, position, batches, touched)
                work.books.advance(cursor, position, following.generation, following.next_offset)
                span = (batches[0].from_offset, batches[-1].to_offset)
                records = (touched.records, sum(batch.records for batch in batches) - touched.records, touched.values)
                points = (shipped.found, len(shipped.written), len(shipped.refused))
                work.books.followed(cursor, position, Range(*span, *records, *points, by_time))
                self._commit(work, cursor, shipped)
            self.progress.records += touched.records
            self.progress.partitions[position.partition] = following.next_offset

        work.under_way[position.partition] = following
        work.ship(touched, done, replaced=any(batch.conflicts for batch in batches))
        return True

    def _replay(self, work: "_Work", batch: ReplayBatch) -> None:
        def done(shipped: Shipped) -> None:
            with work.connection.cursor() as cursor:
                work.books.note_replay(cursor, batch)
                self._commit(work, cursor, shipped)
            self.progress.replays += 1

        work.ship(work.keys.read(_slice(batch.partition, batch.generation, batch)), done, replaced=True)
        work.flush()

    def _gather(self, batches: list[Batch]) -> list[Batch]:
        """As many as make one reading."""
        records = 0
        for count, batch in enumerate(batches):
            records += batch.records
            if count and records > self._settings.drain_batch_records:
                return batches[:count]
        return batches

    def _note_missing(self, work: "_Work", cursor: Cursor, position: Position, batches: list[Batch], touched: Touched) -> bool:
        """Whether the messages do not tell any more all that they brought: retention removed some before we came, or they are decoded
        otherwise now. Then it is copied by time, once the rest is there."""
        received = [batch.first_received for batch in batches if batch.first_received is not None]
        if not received:
            return False
        if touched.records < sum(batch.records for batch in batches):
            missing = work.books.was_removed(cursor, min(received))
        else:
            missing = touched.values < sum(batch.counted for batch in batches) and not work.books.was_replayed(
                cursor, position, batches[0].from_offset, batches[-1].to_offset
            )
        if missing:
            last = max(batch.last_received for batch in batches if batch.last_received is not None)
            # Imports are history of any age.
            history = position.partition >= FIRST_IMPORT
            begin = 0 if history else min(received) - self._settings.time_window_past_seconds * 1_000_000
            end = last + (self._settings.time_window_future_seconds + 1) * 1_000_000
            backfill.note(cursor, work.books.sink, begin, end)
        return missing

    def _commit(self, work: "_Work", cursor: Cursor, shipped: Shipped) -> None:
        work.books.delivered(cursor, shipped.written, shipped.refused)
        work.connection.commit()
        self.progress.written += len(shipped.written)
        self.progress.refused += len(shipped.refused)

    def _deletions(self, work: "_Work") -> None:
        """Tenants whose deletion has ended go from the sink, too; what their name has since comes again."""
        with work.connection.cursor() as cursor:
            cursor.execute(
                "SELECT d.deletion_id, d.tenant_id FROM tenant_deletion d JOIN sink s ON s.sink = %s AND d.deletion_id > s.deletion_id"
                " WHERE d.finished_at IS NOT NULL AND NOT EXISTS (SELECT FROM tenant_deletion e WHERE e.finished_at IS NULL"
                " AND e.deletion_id < d.deletion_id AND e.deletion_id > s.deletion_id) ORDER BY 1",
                (work.books.sink,),
            )
            found = cursor.fetchall()
        work.connection.rollback()
        for number, tenant in found:
            work.shipper.forget()
            if self._settings.influx_delete_tenants:
                try:
                    work.shipper.delete_tenant(tenant)
                except InfluxRefusedError as error:
                    log.warning("influx deletes no tenant", sink=work.books.sink, tenant=tenant, error=str(error))
                else:
                    self.progress.deletions.append(tenant)
                    with work.connection.cursor() as cursor:
                        backfill.note_tenant(cursor, work.books.sink, tenant)
            with work.connection.cursor() as cursor:
                cursor.execute("UPDATE sink SET deletion_id = %s WHERE sink = %s", (number, work.books.sink))
            work.connection.commit()


class _Work:
    """What a shift works with."""

    def __init__(self, connection: Connection, books: Books, keys: KeyReader, shipper: Shipper) -> None:
        self.connection = connection
        self.books = books
        self.keys = keys
        self.shipper = shipper
        self.under_way: dict[int, Position] = {}
        """Where partitions will be when all is done that was shipped."""

    def close(self) -> None:
        """Close what is not the caller's."""
        self.keys.close()

    def positions(self) -> list[Position]:
        """Now, or where they will be."""
        with self.connection.cursor() as cursor:
            found = self.books.positions(cursor)
        self.connection.rollback()
        ahead = self.under_way
        return [each._replace(**_place(ahead[each.partition])) if each.partition in ahead else each for each in found]

    def flush(self) -> None:
        """Until everything that was shipped is done."""
        self.shipper.flush()
        self.under_way.clear()

    def replays(self) -> list[ReplayBatch]:
        """Now."""
        with self.connection.cursor() as cursor:
            found = self.books.replays(cursor)
        self.connection.rollback()
        return found

    def ship(self, touched: Touched, done: Callable[[Shipped], None], *, replaced: bool) -> None:
        """Bring what stands at these keys now on its way; see Shipper.ship."""
        with self.connection.cursor() as cursor:
            rows = stored.at(cursor, touched)
        self.connection.rollback()
        self.shipper.ship(rows, done, replaced=replaced)


def _place(position: Position) -> dict[str, int]:
    return {"generation": position.generation, "next_offset": position.next_offset}


def _slice_of(position: Position, batches: list[Batch]) -> Slice:
    starts = [batch.first_received for batch in batches if batch.first_received is not None]
    ends = [batch.last_received for batch in batches if batch.last_received is not None]
    return Slice(
        start=min(starts, default=0),
        end=max(ends, default=-1) + 1,
        records=sum(batch.records for batch in batches),
        partition=position.partition,
        first=batches[0].from_offset,
        last=batches[-1].to_offset,
        generation=position.generation,
    )


def _slice(partition: int, generation: int, batch: ReplayBatch) -> Slice:
    span = (batch.first_received, batch.last_received + 1, batch.to_offset - batch.from_offset)
    return Slice(*span, partition, batch.from_offset, batch.to_offset, generation=generation)
