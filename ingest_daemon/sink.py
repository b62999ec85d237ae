"""Where messages go: straight to Kafka while it confirms in time, else into the spool and from there to Kafka, in order."""

import contextlib
import time
from collections.abc import Callable
from typing import Any

import structlog
from confluent_kafka import KafkaError, KafkaException, Producer

from ingest_daemon.clock import ClockWatch
from ingest_daemon.credentials import Credentials
from ingest_daemon.dead_letter import ABOUT_THE_BATCH, ABOUT_THE_MESSAGE, Refused
from ingest_daemon.delivered import Delivered
from ingest_daemon.envelope import HEADER
from ingest_daemon.gate import Gate
from ingest_daemon.inflight import IN_KAFKA, Connection, InFlight, OldestAge, Pending, Place, State
from ingest_daemon.kafka import Channel, KafkaStuckError
from ingest_daemon.settings import Settings
from ingest_daemon.sink_state import SinkState
from ingest_daemon.spool import Spool
from ingest_daemon.spool_store import Level, Row
from ingest_daemon.together import NAMESPACE, partition_of

PROBE_ROWS = 100

DIRECT = SinkState.DIRECT  # once: looked up for each message
ANY_PARTITION = -1  # librdkafka's: the key decides

log = structlog.get_logger("ingest.kafka")


class Sink:
    """Takes every message in arrival order, and settles each once it is in Kafka, in the dead-letter topic, or in the spool.

    Direct: a message goes to librdkafka. If the oldest is not confirmed in time, or one fails, all unsettled ones are copied
    into the spool, and so are all that come. librdkafka keeps what it accepted until it is delivered, in order and once.
    Spooling: entries go to librdkafka in order, oldest first, while it confirms in time; after a failure nothing is produced
    until everything that is out has been reported, and then a small probe first. When the last entry is out, what has not
    reached the disk follows from memory, and the sink is direct again: librdkafka keeps the order of what it is given.

    `SinkState` names where messages go, and the `Gate` keeps it. A producer that ended with a fatal error is a failure like any other;
    while one whose certificates have changed finishes what it has, new messages wait (`Replacement`).

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
        credentials: Credentials | None = None,
    ) -> None:
        """`credentials`: the sink uses what they found last. The owner calls `look` periodically. Raises SettingsError."""
        self._clock_watch = clock_watch
        self._delivered = Delivered(clock) if settings.ingest_log_level == "debug" else None
        self._sampling: ClockWatch | None = None  # once its time has come: the next message's report compares the clocks
        self._settings = settings
        self._topic = settings.kafka_topic
        self._together = settings.ingest_sparkplug_partitions
        self._after_seconds = settings.ingest_spool_after_seconds
        self._in_flight = in_flight
        self._spool = spool
        self._clock = clock
        self._channel = Channel(settings, factory)
        self._refused = Refused(settings, lambda: Channel(settings, factory, **{"batch.num.messages": 1, "linger.ms": 0}), clock)
        self._gate = Gate(settings, self._channel, self._refused, spool, credentials=credentials or Credentials(settings), clock=clock)
        self._oldest = OldestAge(in_flight, clock)
        self._leaving = False
        self._replayed = Connection(0, self)

    # -- what the bridge asks ----------------------------------------------------------------------------------
    @property
    def problems(self) -> list[str]:
        """What is in the way, with the setting to look at; empty while messages flow."""
        return [problem for problem in (self._gate.problem, self._refused.problem, self._spool.problem) if problem]

    @property
    def working(self) -> bool:
        """Whether a report or the disk's answer is due soon."""
        return self._spool.working or (self._spool.outstanding > 0 and self._gate.in_time())

    @property
    def awaits_reports(self) -> bool:
        """Whether a delivery report is all that messages in flight wait for."""
        return self._gate.state is DIRECT and len(self._channel) > 0

    @property
    def unfinished(self) -> bool:
        """Whether leaving now would repeat entries later that a moment's wait may spare."""
        return self.working or (self._spool.undeleted > 0 and not self._spool.unwritable)

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
    def take(self, messages: list[Pending]) -> None:
        """Take messages at their arrival, in order, into the in-flight window, too."""
        window, gate, produce = self._in_flight, self._gate, self._produce
        append = window.queue.append
        window.payload_bytes += sum([len(pending.value) for pending in messages])
        for pending in messages:
            append(pending)  # one by one: what fails has all before it to the spool
            if gate.state is DIRECT:
                produce(pending)
            else:
                pending.place = Place.NOWHERE
                self._spool.wait(pending)

    def _produce(self, pending: Pending) -> bool:
        """Whether librdkafka took it, or Kafka's refusal is known already."""
        pending.place = IN_KAFKA
        report: Callable[[Any, Any], None] = pending
        if self._sampling is not None:
            report, self._sampling = self._sampling.compared(pending, self._clock), None
        if self._delivered is not None:
            report = self._delivered.watched(report, pending)
        key, partition = pending.key, ANY_PARTITION
        if NAMESPACE in key and self._together and (found := partition_of(key, self._together)) is not None:
            partition = found
        try:
            self._channel.produce(self._topic, pending.value, key, partition, on_delivery=report, headers=[(HEADER, pending.header)])
        except BufferError:
            pending.place = Place.NOWHERE
            if self._gate.state is DIRECT:
                self._gate.full("librdkafka's queue is full")
                self._leave_direct()
            return False
        except KafkaException as error:
            if error.args[0].code() == KafkaError.MSG_SIZE_TOO_LARGE:  # for librdkafka, whatever its batch
                self._refuse(pending, error.args[0])
            else:
                self.failed(pending, error.args[0])
        return True

    def arrived(self, pending: Pending, state: State) -> None:
        """An entry of the spool is in Kafka."""
        self._spool.arrived(pending, state)

    def failed(self, pending: Pending, error: Any) -> None:
        """A delivery report with an error: refused for good, or to be sent again."""
        if self._gate.state is SinkState.CLOSED:
            return
        # Refused for what it shared its batch with, or perhaps: then all of them go again, in order.
        smaller = error.code() in ABOUT_THE_BATCH and self._channel.make_batches_smaller(pending.record_bytes)
        if error.code() in ABOUT_THE_MESSAGE and not smaller:
            self._refuse(pending, error)
            return
        pending.place = Place.NOWHERE
        if pending.entry:
            self._spool.failed(pending)
        self._fail(error)
        if smaller:
            self._gate.retry_now()

    def _refuse(self, pending: Pending, error: Any) -> None:
        pending.place = Place.REFUSED
        if pending.entry:
            self._spool.refused(pending)
        self._refused.take(pending, error.str())
        if self._gate.state is DIRECT and self._refused.full:
            self._gate.full("too many refused messages wait for the dead-letter topic (IOT_KAFKA_DEAD_LETTER_TOPIC)")
            self._leave_direct()

    def _fail(self, error: Any) -> None:
        if self._gate.fail(error):
            self._leave_direct()

    def _leave_direct(self) -> None:
        """The gate has left DIRECT, because of a problem or for a hand-over: what is unsettled waits for the spool, though it is out."""
        self._spool.wait_only([pending for pending in self._in_flight.unsettled() if not pending.entry])
        reason = self._gate.reason
        write = log.warning if reason else log.info
        write("spooling", reason=reason or "new certificates", in_flight=len(self._in_flight), entries=self._spool.level.entries)

    def _go_direct(self) -> None:
        self._gate.become(DIRECT, None)
        self._oldest.forget()
        self._spool.wait_only([])
        log.info("direct", entries=self._spool.level.entries)

    # -- each turn ---------------------------------------------------------------------------------------------
    def poll(self, seconds: float = 0.0) -> None:
        """Serve delivery reports, the disk's answer and retries; waits at most so long for a report. Raises KafkaStuckError."""
        self._channel.poll(seconds)
        if (error := self._gate.new_fatal_error()) is not None:
            self._fail(error)
        if self._gate.take_over_credentials():
            self._leave_direct()
        self._refused.poll()
        rows = self._spool.poll()
        if self._gate.state is DIRECT:
            if self._oldest.seconds() >= self._after_seconds:
                self._gate.unconfirmed()
                self._leave_direct()
        else:
            self._forward(rows)
        if self._delivered is not None:
            self._delivered.tell()
        if self._clock_watch is not None and self._clock_watch.due(self._clock()):
            self._sampling = self._clock_watch

    def push(self) -> None:
        """Give the disk its next round; call when everything that `poll` brought about has been counted."""
        self._spool.submit(self._wanted(), spooling=self._gate.state is not DIRECT)

    def _forward(self, rows: list[Row]) -> None:
        if self._gate.failed:
            rows = []  # read before the failure: the cursor goes back
        if self._leaving or not self._gate.may_produce():
            return
        for row in rows:
            if not self._replay(row) or self._gate.failed:
                return
        if self._spool.at_end:
            self._produce_from_memory()
            if self._gate.idle:
                self._go_direct()

    def _replay(self, row: Row) -> bool:
        entry, connection, sequence, key, header, value = row
        if self._spool.knows(entry):
            self._spool.cursor = entry
            return True
        if connection != self._replayed.number:
            self._replayed = Connection(connection, self)
        pending = Pending(self._replayed, 0, sequence, key, value, header)
        pending.entry = entry
        return self._produce_again(pending)

    def _produce_again(self, pending: Pending) -> bool:
        """As `_produce`, for what is in the spool or waits for it."""
        if pending.entry:
            self._spool.produced(pending)  # first: the refusal of a too large message is known at once
        if self._produce(pending):
            self._gate.produced()
            return True
        if pending.entry:
            self._spool.not_produced(pending)
        return False

    def _produce_from_memory(self) -> None:
        messages = list(self._spool.in_memory())
        left = len(messages) if self._gate.state is SinkState.FORWARDING else PROBE_ROWS
        for pending in messages:
            if pending.place is Place.NOWHERE and not pending.state:
                if not left or self._gate.failed:
                    return
                left -= 1
                if not self._produce_again(pending):
                    return
            elif pending.entry:
                self._spool.cursor = max(self._spool.cursor, pending.entry)
        if self._gate.state is SinkState.FORWARDING:
            self._go_direct()

    def _wanted(self) -> int:
        """How many entries to read."""
        if self._gate.state in (DIRECT, SinkState.FAILED) or self._spool.at_end or self._leaving or not self._gate.may_produce():
            return 0
        return self._spool.room if self._gate.state is SinkState.FORWARDING else PROBE_ROWS

    # -- the end -----------------------------------------------------------------------------------------------
    def leave(self) -> None:
        """Hand no more entries to Kafka."""
        self._leaving = True

    def spool_all(self) -> None:
        """Wait no longer for Kafka: what is unsettled goes into the spool."""
        if self._gate.state is DIRECT and len(self._in_flight):
            self._gate.become(SinkState.UNPROVEN, "leaving")
            self._leave_direct()

    def close(self) -> None:
        """Drop what is unfinished: it is in the spool, or it was not acknowledged and the MQTT broker redelivers it."""
        self._gate.become(SinkState.CLOSED, self._gate.reason)
        with contextlib.suppress(KafkaStuckError):
            self._channel.discard()
            self._refused.close()
        self._spool.close()
