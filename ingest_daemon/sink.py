"""Where messages go: straight to Kafka while it confirms in time, else into the spool and from there to Kafka, in order."""

import contextlib
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import structlog
from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, KafkaError, KafkaException, Producer

from ingest_daemon.clock import ClockWatch
from ingest_daemon.credentials import Credentials
from ingest_daemon.dead_letter import ABOUT_THE_BATCH, ABOUT_THE_MESSAGE, Refused
from ingest_daemon.envelope import HEADER
from ingest_daemon.failures import Failures
from ingest_daemon.inflight import Connection, InFlight, Pending, Place, State
from ingest_daemon.kafka import LEAST_BATCH_BYTES, Channel, KafkaStuckError
from ingest_daemon.settings import Settings
from ingest_daemon.spool import Spool
from ingest_daemon.spool_store import Level, Row

PROBE_ROWS = 100
SAMPLE_SECONDS = 2.0
HANDOVER_SECONDS = 10.0  # how long a producer with outdated certificates may take to finish, while brokers accept them
REFUSED_SECONDS = 5.0  # between attempts to use certificates that librdkafka refuses

log = structlog.get_logger("ingest.kafka")


class Sink:
    """Takes every message in arrival order, and settles each once it is in Kafka, in the dead-letter topic, or in the spool.

    Direct: a message goes to librdkafka. If the oldest is not confirmed in time, or one fails, all unsettled ones are copied
    into the spool, and so are all that come. What librdkafka has it keeps, for ever: it delivers in order and once.
    Spooling: entries go to librdkafka in order, oldest first, while it confirms in time; after a failure nothing is produced
    until everything that is out has been reported, and then a small probe first. When the last entry is out, what has not
    reached the disk follows from memory, and the sink is direct again: librdkafka keeps the order of what it is given.

    A producer that ended with a fatal error, such as a missing right, is a failure like any other, and is replaced before the next
    probe. One whose certificates have changed first finishes what it has, while new messages wait; if it can't, they are sent again.

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
        """`credentials`: whoever has them `look` now and then makes the sink use what they find. Raises SettingsError."""
        self._credentials = credentials or Credentials(settings)
        self._identity = self._credentials.current
        self._clock_watch = clock_watch
        self._sample = False
        self._settings = settings
        self._topic = settings.kafka_topic
        self._after_seconds = settings.ingest_spool_after_seconds
        self._in_flight = in_flight
        self._spool = spool
        self._clock = clock
        self._channel = Channel(settings, factory)
        self._fatal: Any = None  # the producer's fatal error that was seen last
        self._renew_by = 0.0  # when the producer is to be replaced at the latest; 0: not at all
        self._take_over_at = 0.0
        self._refused = Refused(settings, lambda: Channel(settings, factory, **{"batch.num.messages": 1, "linger.ms": 0}), clock)
        self._direct = spool.at_end
        self._marks: deque[tuple[float, int]] = deque()  # when so many messages had been taken in all
        self._failures = Failures(settings, clock)
        self._proven = self._probing = False  # whether Kafka took something since the last trouble; whether something is out to tell
        self._leaving = self._closing = False
        self._replayed = Connection(0, self)
        self._problem: str | None = None
        self._unconfirmed = f"Kafka: no confirmation for {self._after_seconds:g} s"

    # -- what the bridge asks ----------------------------------------------------------------------------------
    @property
    def problems(self) -> list[str]:
        """What is in the way, with the setting to look at; empty while messages flow."""
        kafka = self._problem or (None if self._direct or self._in_time() else self._unconfirmed)
        if kafka == self._unconfirmed:
            kafka += f": {self._channel.cause or self._channel.refusal or 'IOT_KAFKA_BOOTSTRAP_SERVERS'}"
        return [problem for problem in (kafka, self._refused.problem, self._spool.problem) if problem]

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
            if error.args[0].code() == KafkaError.MSG_SIZE_TOO_LARGE:  # for librdkafka, whatever its batch
                self._refuse(pending, error.args[0])
            else:
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
        smaller = error.code() in ABOUT_THE_BATCH and self._make_batches_smaller(pending)
        if error.code() in ABOUT_THE_MESSAGE and not smaller:
            self._refuse(pending, error)
            return
        pending.place = Place.NOWHERE
        if pending.entry:
            self._spool.failed(pending)
        self._fail(error)
        if smaller:
            self._failures.retry_now()

    def _refuse(self, pending: Pending, error: Any) -> None:
        pending.place = Place.REFUSED
        if pending.entry:
            self._spool.refused(pending)
        self._refused.take(pending, error.str())
        if self._direct and self._refused.full:
            self._spool_all("too many refused messages wait for the dead-letter topic (IOT_KAFKA_DEAD_LETTER_TOPIC)")

    def _make_batches_smaller(self, pending: Pending) -> bool:
        """Whether the message was, or may have been, refused for what it shared its batch with: all of them then go again, in order."""
        if self._channel.outdated:
            return True
        if pending.record_bytes >= self._channel.batch_bytes or self._channel.batch_bytes <= LEAST_BATCH_BYTES:
            return False  # it was alone
        self._channel.set_batch_bytes(max(self._channel.batch_bytes // 4, LEAST_BATCH_BYTES))
        setting = f"IOT_KAFKA_TOPIC: max.message.bytes of {self._topic}"
        log.warning("batches_made_smaller", bytes=self._channel.batch_bytes, setting=setting)
        return True

    def _fail(self, error: Any) -> None:
        """Kafka, or the producer, does not take messages now."""
        if error.fatal() or error.code() == KafkaError._FATAL:
            self._channel.suspect(error)
        if self._channel.fatal is not None:
            error = self._channel.fatal  # the others follow from it
        self._problem = self._failures.note(error, self._problem)
        if self._direct:
            self._spool_all(self._problem)
        self._proven = self._probing = False

    # -- producers come and go ---------------------------------------------------------------------------------
    def _take_over_credentials(self) -> None:
        """Use what the files hold now: a password at once, certificates by a hand-over to a new producer."""
        found, before = self._credentials.current, self._identity
        if found.password is not None and found.password != before.password:
            self._channel.set_password(found.password)
            self._refused.set_password(found.password)
        if found.files != before.files:
            if not self._channel.prepare():
                log.warning("producer_not_replaced", reason=self._channel.refusal, hint="the present one stays; tried again soon")
                self._take_over_at = self._clock() + REFUSED_SECONDS
                return
            self._refused.renew()
            self._renew_by = self._clock() + HANDOVER_SECONDS
            if self._direct:
                self._spool_all(None)
            self._probing = False
        self._identity = found

    def _renew(self) -> bool:
        """Whether there is a new producer; what the old one could not finish has failed."""
        self._renew_by = 0.0
        if not self._channel.renew():
            self._problem = f"Kafka: {self._channel.refusal}"
            self._failures.retry_late()
            return False
        self._fatal = None
        log.debug("producer_replaced")
        return True

    # -- each turn ---------------------------------------------------------------------------------------------
    def poll(self) -> None:
        """Serve delivery reports, the disk's answer and retries. Raises KafkaStuckError."""
        self._channel.poll()
        if self._channel.fatal is not self._fatal:
            self._fatal = self._channel.fatal
            if self._fatal is not None:
                self._fail(self._fatal)
        if self._credentials.current is not self._identity and self._clock() >= self._take_over_at:
            self._take_over_credentials()
        self._refused.poll()
        rows = self._spool.poll()
        if self._direct:
            if self._late():
                self._probing = True
                self._spool_all(self._unconfirmed)
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

    def _spool_all(self, problem: str | None) -> None:
        """Leave direct mode, because of a problem or for a hand-over."""
        self._direct = self._proven = False
        self._problem = problem
        self._spool.wait_only([pending for pending in self._in_flight.unsettled() if not pending.entry])
        told = log.warning if problem else log.info
        told("spooling", reason=problem or "new certificates", in_flight=len(self._in_flight), entries=self._spool.level.entries)

    def _in_time(self) -> bool:
        return self._spool.outstanding_seconds() < self._after_seconds

    def _forward(self, rows: list[Row]) -> None:
        if self._failures.going_on:
            rows = []  # read before the failure: the cursor goes back
        if not self._may_produce():
            return
        for row in rows:
            if not self._replay(row) or self._failures.going_on:
                return
        if self._spool.at_end:
            self._produce_from_memory()
            if not self._direct and self._idle():
                self._go_direct()

    def _idle(self) -> bool:
        """Whether there is nothing that could prove Kafka well, and it is worth a try."""
        anything = len(self._channel) or self._probing or self._spool.outstanding or next(self._spool.in_memory(), None)
        return not anything and self._failures.quiet

    def _may_produce(self) -> bool:
        if self._leaving or self._refused.full:
            return False
        if self._failures.going_on:
            if len(self._channel) or self._refused.alone or not self._failures.due:
                return False
            if (self._fatal is not None or self._channel.outdated) and not self._renew():
                return False
            self._failures.going_on = False
            self._spool.rewind()
        if self._renew_by:
            if len(self._channel) and self._clock() < self._renew_by and not self._channel.cause:
                return False
            if not self._renew() or self._failures.going_on:
                return False
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
                if not left or self._failures.going_on:
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
        if self._direct or self._failures.going_on or self._spool.at_end or not self._may_produce():
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
