"""Where messages go: straight to Kafka while it confirms in time, else into the spool and from there to Kafka, in order."""

import contextlib
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import structlog
from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, KafkaError, KafkaException, Producer

from ingest_daemon.clock import ClockWatch
from ingest_daemon.dead_letter import ABOUT_THE_MESSAGE, Refused
from ingest_daemon.envelope import HEADER
from ingest_daemon.inflight import Connection, InFlight, Pending, Place, State
from ingest_daemon.kafka import Channel, KafkaStuckError, producer_config, setting_for
from ingest_daemon.settings import Settings
from ingest_daemon.spool import Spool
from ingest_daemon.spool_store import Level, Row

FIRST_DELAY_SECONDS, LAST_DELAY_SECONDS = 0.5, 15.0
PROBE_ROWS = 100
SAMPLE_SECONDS = 2.0

log = structlog.get_logger("ingest.kafka")


class Sink:
    """Takes every message in arrival order, and settles each once it is in Kafka, in the dead-letter topic, or in the spool.

    Direct: a message goes to librdkafka. If the oldest is not confirmed in time, or one fails, all unsettled ones are copied
    into the spool, and so are all that come. What librdkafka has it keeps, for ever: it delivers in order and once.
    Spooling: entries go to librdkafka in order, oldest first, while it confirms in time; after a failure nothing is produced
    until everything that is out has been reported, and then a small probe first. When the last entry is out, what has not
    reached the disk follows from memory, and the sink is direct again: librdkafka keeps the order of what it is given.

    Nothing blocks. A failed delivery report never settles a message.
    """

    def __init__(
        self,
        settings: Settings,
        in_flight: InFlight,
        spool: Spool,
        *,
        factory: Callable[..., Any] = Producer,
        clock: Callable[[], float] = time.monotonic,
        clock_watch: ClockWatch | None = None,
    ) -> None:
        self._clock_watch = clock_watch
        self._sample = False
        self._settings = settings
        self._topic = settings.kafka_topic
        self._after_seconds = settings.ingest_spool_after_seconds
        self._in_flight = in_flight
        self._spool = spool
        self._clock = clock
        self._channel = Channel(producer_config(settings), factory)
        self._refused = Refused(
            settings, lambda: Channel({**producer_config(settings), "batch.num.messages": 1, "linger.ms": 0}, factory), clock
        )
        self._direct = spool.at_end
        self._marks: deque[tuple[float, int]] = deque()  # when so many messages had been taken in all
        self._failing = False  # until everything that is out has been reported
        self._proven = self._probing = False  # whether Kafka took something since the last trouble; whether something is out to tell
        self._retry_at = self._last_failure = 0.0
        self._delay = FIRST_DELAY_SECONDS
        self._leaving = self._closing = False
        self._replayed = Connection(0, self)
        self._problem: str | None = None

    # -- what the bridge asks ----------------------------------------------------------------------------------
    @property
    def problems(self) -> list[str]:
        """What is in the way, with the setting to look at; empty while messages flow."""
        kafka = self._problem or (None if self._direct or self._in_time() else self._unconfirmed())
        return [problem for problem in (kafka, self._spool.problem) if problem]

    @property
    def working(self) -> bool:
        """Whether a report or the disk's answer is due soon."""
        return self._spool.working or (self._spool.outstanding > 0 and self._in_time())

    @property
    def unfinished(self) -> bool:
        """Whether leaving now would repeat entries later that a moment's wait may spare."""
        return self.working or self._spool.working or (self._spool.undeleted > 0 and not self._spool.unwritable)

    @property
    def level(self) -> Level:
        """How full the spool is."""
        return self._spool.level

    @property
    def in_doubt(self) -> int:
        """Entries of which a kill before the next `push` may leave open whether they are on disk."""
        return self._spool.in_doubt

    @property
    def spool_full(self) -> bool:
        """Whether the spool takes no more."""
        return self._spool.unwritable

    def take_left(self) -> tuple[int, int]:
        """Entries that left the spool for good since the last call: into Kafka's topic, into the dead-letter topic."""
        return self._spool.take_left()

    # -- messages ----------------------------------------------------------------------------------------------
    def send(self, pending: Pending) -> None:
        """Take a message that was just added to the in-flight window."""
        if self._direct:
            self._produce(pending)
        else:
            pending.place = Place.NOWHERE
            self._spool.wait(pending)

    def _produce(self, pending: Pending) -> bool:
        """Whether librdkafka took it, or Kafka's refusal is known already."""
        pending.place = Place.KAFKA
        report = self._sampled(pending) if self._sample else pending
        try:
            self._channel.produce(self._topic, pending.value, pending.key, on_delivery=report, headers=[(HEADER, pending.header)])
        except BufferError:
            pending.place = Place.NOWHERE
            if self._direct:
                self._spool_all("librdkafka's queue is full")
            return False
        except KafkaException as error:
            self.failed(pending, error.args[0])
        return True

    def _sampled(self, pending: Pending) -> Callable[[Any, Any], None]:
        """The message's delivery report, which also compares the clocks."""
        self._sample = False
        wall, begun = time.time(), self._clock()

        def report(error: Any, message: Any) -> None:
            pending(error, message)
            kind, timestamp = message.timestamp()
            if error is None and kind == TIMESTAMP_LOG_APPEND_TIME and self._clock() - begun < SAMPLE_SECONDS and self._clock_watch:
                self._clock_watch.sample(timestamp, wall)

        return report

    def arrived(self, pending: Pending, state: State) -> None:
        """An entry of the spool is in Kafka."""
        self._spool.arrived(pending, state)

    def failed(self, pending: Pending, error: Any) -> None:
        """A delivery report with an error: refused for good, or to be sent again."""
        if self._closing:
            return
        if error.code() in ABOUT_THE_MESSAGE:
            pending.place = Place.REFUSED
            if pending.entry:
                self._spool.refused(pending)
            self._refused.take(pending, error.str())
            if self._direct and self._refused.full:
                self._spool_all("too many refused messages wait for the dead-letter topic (IOT_KAFKA_DEAD_LETTER_TOPIC)")
            return
        pending.place = Place.NOWHERE
        if pending.entry:
            self._spool.failed(pending)
        self._note_failure(error)
        if self._direct:
            self._spool_all(self._problem or "")
        self._proven = self._probing = False

    def _note_failure(self, error: Any) -> None:
        if error.fatal() or error.code() == KafkaError._FATAL:
            self._channel.fatal = self._channel.fatal or error.str()
        now = self._clock()
        if now - self._last_failure > 2 * LAST_DELAY_SECONDS:
            self._delay = FIRST_DELAY_SECONDS
        if not self._failing:
            self._failing = True
            self._retry_at = now + self._delay
            self._delay = min(2 * self._delay, LAST_DELAY_SECONDS)
            log.warning("delivery_failed", reason=error.str(), code=error.name(), topic=self._topic, setting=setting_for(error))
        self._last_failure = now
        self._problem = f"Kafka: {error.str()} ({setting_for(error)})"

    # -- each turn ---------------------------------------------------------------------------------------------
    def poll(self) -> None:
        """Serve delivery reports, the disk's answer and retries. Raises KafkaStuckError."""
        self._channel.poll()
        self._refused.poll()
        rows = self._spool.poll()
        if self._direct:
            if self._late():
                self._probing = True
                self._spool_all(self._unconfirmed())
        else:
            self._forward(rows)
        if self._clock_watch is not None and self._clock_watch.due(self._clock()):
            self._sample = True

    def push(self) -> None:
        """Give the disk its next round; call when everything that `poll` brought about has been counted."""
        self._spool.submit(self._wanted(), spooling=not self._direct)

    def _late(self) -> bool:
        """Whether the oldest unsettled message has waited too long. One mark per turn: reports say nothing of time."""
        marks, taken = self._marks, self._in_flight.released + len(self._in_flight)
        now = self._clock()
        if not marks or marks[-1][1] < taken:
            marks.append((now, taken))
        while marks and marks[0][1] <= self._in_flight.released:
            marks.popleft()
        return bool(marks) and now - marks[0][0] >= self._after_seconds

    def _spool_all(self, reason: str) -> None:
        """Leave direct mode."""
        self._direct = self._proven = False
        self._problem = reason
        self._spool.wait_only([pending for pending in self._in_flight.unsettled() if not pending.entry])
        log.warning("spooling", reason=reason, in_flight=len(self._in_flight), entries=self._spool.level.entries)

    def _unconfirmed(self) -> str:
        return f"Kafka: no confirmation for {self._after_seconds:g} s (IOT_KAFKA_BOOTSTRAP_SERVERS)"

    def _in_time(self) -> bool:
        return self._spool.outstanding_seconds() < self._after_seconds

    def _forward(self, rows: list[Row]) -> None:
        if self._failing:
            rows = []  # read before the failure: the cursor goes back
        if not self._may_produce():
            return
        for row in rows:
            if not self._replay(row) or self._failing:
                return
        if self._spool.at_end:
            self._produce_from_memory()

    def _may_produce(self) -> bool:
        if self._leaving or self._refused.full:
            return False
        if self._failing:
            if len(self._channel) or self._clock() < self._retry_at:
                return False
            self._failing = False
            self._spool.rewind()
        if not self._proven:
            if len(self._channel):
                return False
            if self._probing:
                self._proven = True
                self._problem = None
        return self._in_time()

    def _replay(self, row: Row) -> bool:
        entry, connection, sequence, key, header, value = row
        if self._spool.knows(entry):
            self._spool.cursor = entry
            return True
        if connection != self._replayed.number:
            self._replayed = Connection(connection, self)
        pending = Pending(self._replayed, 0, sequence, key, value, header)
        pending.entry = entry
        return self._produce_entry(pending)

    def _produce_entry(self, pending: Pending) -> bool:
        self._spool.produced(pending)  # first: the refusal of a too large message is known at once
        if self._produce(pending):
            self._probing = True
            return True
        self._spool.not_produced(pending)
        return False

    def _produce_from_memory(self) -> None:
        messages = list(self._spool.in_memory())
        left = len(messages) if self._proven else PROBE_ROWS
        for pending in messages:
            if pending.place is Place.NOWHERE and not pending.state:
                if not left or self._failing:
                    return
                left -= 1
                if not (self._produce_entry(pending) if pending.entry else self._produce(pending)):
                    return
                self._probing = True
            elif pending.entry:
                self._spool.cursor = max(self._spool.cursor, pending.entry)
        if self._proven:
            self._go_direct()

    def _go_direct(self) -> None:
        self._direct = True
        self._problem = None
        self._marks.clear()
        self._spool.wait_only([])
        log.info("direct", entries=self._spool.level.entries)

    def _wanted(self) -> int:
        """How many entries to read."""
        if self._direct or self._failing or self._spool.at_end or not self._may_produce():
            return 0
        return self._spool.room if self._proven else PROBE_ROWS

    # -- the end -----------------------------------------------------------------------------------------------
    def leave(self) -> None:
        """Hand no more entries to Kafka."""
        self._leaving = True

    def spool_all(self) -> None:
        """Wait no longer for Kafka: what is unsettled goes into the spool."""
        if self._direct and len(self._in_flight):
            self._spool_all("leaving")

    def close(self) -> None:
        """Drop what is unfinished: it is in the spool, or it was not acknowledged and the MQTT broker redelivers it."""
        self._closing = True
        with contextlib.suppress(KafkaStuckError):
            self._channel.discard()
            self._refused.close()
        self._spool.close()
