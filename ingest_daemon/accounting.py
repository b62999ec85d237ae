"""The daemon's books: where each message that it ever received is now, exact also after a kill -9.

received = delivered + spooled + dead_lettered + in_flight + given_up + missing, in every snapshot.
"""

import sqlite3
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from ingest_daemon.accounting_file import HEAD_BYTES, AccountingFile
from ingest_daemon.connections import KEPT, ConnectionHistory, ConnectionReport, Oldest, in_kafka, listed
from ingest_daemon.figures import Snapshot, Totals, Turn
from ingest_daemon.state_dir import boot, file_name

__all__ = ["Accounting", "Snapshot", "Totals", "Turn"]

CAPACITY = 512  # unfinished connections in the file
KEEP_SECONDS, CLOSE_SECONDS = 1.0, 5.0
AWAIT_SECONDS = 60.0
"""So long after the last redelivery of an open connection, nothing more of earlier ones comes. NATS takes 30 s, Moquette 5."""
HOST_DOWN_ROWS = 200_000  # entries that may leave the spool between two syncs of the file

log = structlog.get_logger("ingest.accounting")


@dataclass(slots=True)
class _Entry:
    """An unfinished connection: open, or not everything of it is settled."""

    number: int
    opened_at_us: int
    received: int
    settled: int
    in_kafka: int
    open: bool
    final: bool = False  # of an earlier process: nothing of it will be settled any more

    @property
    def finished(self) -> bool:
        return self.final or (not self.open and self.settled >= self.received)

    def report(self, oldest: Oldest) -> ConnectionReport:
        certain = in_kafka(self.number, self.settled, self.in_kafka, oldest)
        return ConnectionReport(self.number, self.opened_at_us, self.received, self.settled, certain, self.open)


_TOTALS = struct.Struct("<16q")
_ENTRY = struct.Struct("<6q")
_FIRST_ENTRY = HEAD_BYTES + _TOTALS.size


class Accounting:
    """One thread records; any thread may ask. The caller reports `opened`, `record` before the turn's PUBACKs, and `closed`.

    The state is in `accounting-<client id>` of the state directory before `record` returns, so a kill -9 loses at most one turn,
    and nothing that was acknowledged. After a kill:
    - messages that were in flight are awaited: the MQTT broker redelivers them, and redelivered messages take their place. Those
      that have not come a minute after the last redelivery (QoS 0, expired, a shared subscription's other member got them), or
      whose session the broker lost, are given up: they were never acknowledged;
    - fewer rows in the spool than recorded: as many as `in_doubt` allows were delivered and deleted in the last turn (dead letters
      among them count as delivered); the rest is missing;
      If the host went down as well, the file is up to a second old, and HOST_DOWN_ROWS are taken as delivered instead;
    - more rows in the spool than recorded: as many as were missing are back; the rest were spooled in the last turn, and are no longer
      awaited or count as received.
    A lost or damaged file restarts all counters at what the spool holds; connections that it held are no longer listed.

    Connections: `settled` and `in_kafka` never claim too much. Finished ones move into `connections-<client id>.sqlite`
    about a second later (when the disk is full: as soon as it isn't). If more than CAPACITY are unfinished the oldest closed one
    is frozen: what of it is settled later is in the counters, but its `settled` stays. Frozen ones that could not be written
    before a kill are forgotten.
    """

    def __init__(
        self,
        folder: Path,
        client_id: str,
        spooled: int,
        oldest_spooled: Oldest,
        *,
        keep_seconds: float = KEEP_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Recover what an earlier process recorded. `spooled`: rows found in the spool; `oldest_spooled`: the first of them.

        With `keep_seconds` 0 there is no thread: the caller calls `keep`.

        Raises:
            SettingsError: the state directory can't be used. Never retry.
        """
        self._client_id = client_id
        self._clock = clock
        self._lock = threading.Lock()
        self._keeping = threading.Lock()
        self._oldest = oldest_spooled
        self._entries: dict[int, _Entry] = {}
        self._open: _Entry | None = None
        self._frozen: deque[_Entry] = deque(maxlen=KEPT)
        self._history: dict[int, ConnectionReport] = {}
        self._redelivered_at = clock()
        self._newer = False  # whether messages came after the last redelivery
        self._broken = False
        self._problem: str | None = None
        self._unsynced = True
        self._totals = Totals()
        self.recovered: dict[int, tuple[int, int]] = {}
        """Of each connection that an earlier process left unfinished: up to which sequence it was settled, and the last one recorded."""
        self._file = AccountingFile(folder / file_name("accounting", client_id), _TOTALS.size + CAPACITY * _ENTRY.size)
        self._finished = ConnectionHistory(folder / f"{file_name('connections', client_id)}.sqlite")
        self._load()
        self._recover(spooled)
        self._load_history()
        self._write_all()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(keep_seconds,), name="accounting", daemon=True)
        if keep_seconds:
            self._thread.start()

    # -- recovery ----------------------------------------------------------------------------------------------
    def _load(self) -> None:
        body = self._file.body
        if body is None:
            if self._file.damaged:
                log.error("accounting_damaged", file=str(self._file.path), hint="all counters begin anew; the data is not affected")
            return
        self._totals = Totals(*_TOTALS.unpack_from(body))
        for index in range(self._totals.entries):
            number, opened, received, settled, certain, _ = _ENTRY.unpack_from(body, _TOTALS.size + index * _ENTRY.size)
            self._entries[number] = _Entry(number, opened, received, settled, certain, open=False, final=True)
            self.recovered[number] = (settled, received)

    def _recover(self, found: int) -> None:
        t = self._totals
        vanished = max(0, t.spooled - found)
        doubt = max(0, t.in_doubt - t.in_flight)
        if vanished > doubt and t.boot not in (0, boot()):
            log.warning("accounting_older_than_spool", hint="the host went down; up to a second of the accounting went with it")
            doubt = HOST_DOWN_ROWS
        t.delivered += min(vanished, doubt)
        t.spooled = found
        t.boot = boot()
        unsettled, t.in_flight, t.in_flight_bytes = t.in_flight + t.awaiting, 0, 0
        outstanding = t.received - t.delivered - t.dead_lettered - t.spooled - t.given_up - t.missing
        if outstanding < 0 < t.missing:
            back = min(t.missing, -outstanding)
            t.missing, outstanding = t.missing - back, outstanding + back
            log.info("spool_entries_back", messages=back, missing=t.missing, found=found, file=str(self._file.path))
        if outstanding < 0:
            log.warning("spool_holds_more_than_counted", messages=-outstanding, file=str(self._file.path))
            t.received -= outstanding
        t.awaiting = min(max(0, outstanding), unsettled)
        lost = max(0, outstanding) - t.awaiting
        if lost:
            t.missing += lost
            log.error("spool_entries_missing", messages=lost, expected=found + lost, found=found, file=str(self._file.path))
        if t.awaiting:
            log.info("redeliveries_awaited", messages=t.awaiting)

    def _load_history(self) -> None:
        try:
            self._history = {report.number: report for report in self._finished.load()}
        except sqlite3.Error as error:
            self._note(f"the history of connections can't be read: {error}; a damaged connections-*.sqlite can be moved away")

    # -- the loop's side ---------------------------------------------------------------------------------------
    def opened(self, number: int, *, session_lost: bool) -> None:
        """At CONNACK, before any message of the connection."""
        with self._lock:
            t = self._totals
            t.connections += 1
            if session_lost:
                t.sessions_lost += 1
                self._give_up("the broker lost the session")
            if self._open is not None:
                self._open.open = False
            if len(self._entries) >= CAPACITY:
                self._freeze()
            self._open = _Entry(number, time.time_ns() // 1000, 0, 0, 0, open=True)
            self._entries[number] = self._open
            self._redelivered_at = self._clock()
            self._newer = False
            self._write_all()

    def _freeze(self) -> None:
        oldest = min(self._entries)
        log.warning("connection_frozen", connection=oldest, hint="too many connections have messages in flight")
        self._frozen.append(self._entries.pop(oldest))

    def closed(self, number: int, received: int) -> None:
        """That connection is gone after so many messages; they may still be in flight, and not recorded yet."""
        with self._lock:
            if self._open is not None and self._open.number == number:
                self._open.received = max(received, self._open.received)
                self._open.open = False
                self._open = None
                self._write_all()

    def record(self, turn: Turn, received: tuple[int, int] | None, settled: Mapping[int, int], oldest_spooled: Oldest) -> None:
        """Before the turn's PUBACKs are sent; a few µs, and never waits for a disk.

        `received`: the open connection and the last sequence it brought. `settled`: connection → last sequence settled, for those
        that moved; only with everything before it settled too. `oldest_spooled` must already know what `settled` says is spooled.
        """
        t = self._totals
        if turn.quiet and turn.in_doubt == t.in_doubt and turn.in_flight == t.in_flight and oldest_spooled == self._oldest:
            if t.awaiting:
                self._wait_for_redeliveries(turn)
            return
        with self._lock:
            self._oldest = oldest_spooled
            again = min(turn.resumed, t.awaiting)
            t.awaiting -= again
            t.received += turn.received - again
            t.redelivered += turn.redelivered
            t.delivered += turn.delivered + turn.unspooled
            t.dead_lettered += turn.dead_lettered + turn.unspooled_dead_lettered
            t.spooled += turn.spooled - turn.unspooled - turn.unspooled_dead_lettered
            t.in_flight = turn.in_flight
            t.in_flight_bytes = turn.in_flight_bytes
            t.in_doubt = turn.in_doubt
            t.last_received_us = turn.last_received_us or t.last_received_us
            self._move(received, settled)
            self._write()
        if t.awaiting:
            self._wait_for_redeliveries(turn)
        if self._broken is not bool(t.difference()):
            self._report_difference()

    def _move(self, received: tuple[int, int] | None, settled: Mapping[int, int]) -> None:
        entries = self._entries
        if received is not None and (entry := entries.get(received[0])) is not None and entry.received != received[1]:
            entry.received = received[1]
            if received[0] not in settled:
                self._place(entry)
        for number, sequence in settled.items():
            if (entry := entries.get(number)) is not None:
                entry.settled = sequence
                entry.received = max(sequence, entry.received)
                entry.in_kafka = in_kafka(number, sequence, entry.in_kafka, self._oldest)
                self._place(entry)

    def _report_difference(self) -> None:
        difference = self._totals.difference()
        self._broken = bool(difference)
        (log.error if difference else log.info)("accounting_differs", messages=difference, hint="an error of the program; please report it")

    def _wait_for_redeliveries(self, turn: Turn) -> None:
        """Give up what is awaited when the broker evidently has nothing more to redeliver."""
        now = self._clock()
        if turn.redelivered or self._open is None:
            self._redelivered_at, self._newer = now, False
            return
        self._newer = self._newer or bool(turn.received)
        if now - self._redelivered_at > AWAIT_SECONDS and (self._newer or not turn.in_flight):
            with self._lock:
                self._give_up(f"the broker has not redelivered them within {AWAIT_SECONDS:.0f} s")
                self._write()

    def _give_up(self, reason: str) -> None:
        t = self._totals
        if t.awaiting:
            log.warning("given_up", messages=t.awaiting, reason=reason, hint="received before a crash, never acknowledged")
            t.given_up += t.awaiting
            t.awaiting = 0

    # -- the file ----------------------------------------------------------------------------------------------
    def _write_all(self) -> None:
        for index, entry in enumerate(self._entries.values()):
            self._pack(index, entry)
        self._places = {number: index for index, number in enumerate(self._entries)}
        self._totals.entries = len(self._entries)
        self._write()

    def _place(self, entry: _Entry) -> None:
        self._pack(self._places[entry.number], entry)

    def _pack(self, index: int, entry: _Entry) -> None:
        at = _FIRST_ENTRY + index * _ENTRY.size
        _ENTRY.pack_into(self._file.buffer, at, entry.number, entry.opened_at_us, entry.received, entry.settled, entry.in_kafka, entry.open)

    def _pack_totals(self) -> int:
        t = self._totals
        _TOTALS.pack_into(
            self._file.buffer, HEAD_BYTES,
            t.received, t.redelivered, t.delivered, t.dead_lettered, t.spooled, t.in_flight, t.in_flight_bytes, t.awaiting, t.given_up,
            t.missing, t.sessions_lost, t.connections, t.in_doubt, t.last_received_us, t.boot, t.entries,
        )  # fmt: skip
        return _FIRST_ENTRY + t.entries * _ENTRY.size

    def _write(self) -> None:
        self._file.write(self._pack_totals())
        self._unsynced = True

    # -- the slow side -----------------------------------------------------------------------------------------
    def _run(self, seconds: float) -> None:
        while not self._stop.wait(seconds):
            self.keep()

    def keep(self) -> None:
        """Make the state survive a power cut and move finished connections into the history. Blocks; failures are retried next time."""
        with self._keeping:
            problem = None
            for step in (self._sync, self._move_finished):
                try:
                    step()
                except (OSError, sqlite3.Error) as error:
                    problem = str(error)
            self._note(problem)

    def _sync(self) -> None:
        if not self._unsynced:
            return
        with self._lock:
            self._unsynced = False
            self._file.copy(self._pack_totals())
        try:
            self._file.sync()
        except OSError:
            self._unsynced = True
            raise

    def _move_finished(self) -> None:
        with self._lock:
            finished = [entry for entry in self._entries.values() if entry.finished]
            frozen = list(self._frozen)
        if not finished and not frozen:
            return
        reports = [entry.report(self._oldest) for entry in (*frozen, *finished)]
        self._finished.add(reports)
        with self._lock:
            self._history.update((report.number, report) for report in reports)
            for number in sorted(self._history)[: -KEPT or None] if len(self._history) > KEPT else ():
                del self._history[number]
            for entry in finished:
                self._entries.pop(entry.number, None)
            self._frozen = deque((entry for entry in self._frozen if entry not in frozen), maxlen=KEPT)
            self._write_all()

    def _note(self, problem: str | None) -> None:
        if problem and problem != self._problem:
            log.error("accounting_not_kept", reason=problem, file=str(self._file.path), setting="IOT_INGEST_STATE_DIR")
        self._problem = problem

    # -- asking ------------------------------------------------------------------------------------------------
    def snapshot(self) -> Snapshot:
        """Everything at one moment, from any thread."""
        with self._lock:
            totals, oldest = replace(self._totals), self._oldest
            unfinished = [entry.report(oldest) for entry in (*self._frozen, *self._entries.values())]
            history = list(self._history.values())
        return Snapshot(self._client_id, time.time_ns() // 1000, totals, listed(history, unfinished, oldest))

    def totals(self) -> Totals:
        """The counters alone, at one moment, from any thread."""
        with self._lock:
            return replace(self._totals)

    def close(self) -> None:
        """Keep everything; the last call."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(CLOSE_SECONDS)
            if self._thread.is_alive():
                return  # the disk does not answer; what was recorded is in the page cache
        with self._lock:
            self._totals.boot = 0
            self._write()
        self.keep()
        self._finished.close()
        self._file.close()
