"""Messages that Kafka refuses for what they are: tried alone, then kept whole in the dead-letter topic, in parts if need be."""

import time
from collections.abc import Callable
from enum import IntEnum
from typing import Any, Protocol

import structlog
from confluent_kafka import KafkaError, KafkaException

from ingest_daemon.envelope import HEADER
from ingest_daemon.errors import SettingsError
from ingest_daemon.inflight import Pending, State
from ingest_daemon.kafka_causes import cause
from ingest_daemon.settings import Settings

ERROR_HEADER = "iot-error"
PART_HEADER = "iot-part"
FIRST_PART_BYTES, LEAST_PART_BYTES = 512 * 1024, 1024
RETRY_SECONDS = 2.0
FIRST_RENEWAL_SECONDS, LAST_RENEWAL_SECONDS = 1.0, 15.0  # between attempts with a new producer after fatal errors
REPEAT_SECONDS = 300.0  # a failure that goes on is logged this often

# Refusals that another attempt with the same record can't change.
ABOUT_THE_MESSAGE = frozenset(
    {
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.RECORD_LIST_TOO_LARGE,
        KafkaError.INVALID_MSG_SIZE,
        KafkaError.INVALID_RECORD,
        KafkaError.POLICY_VIOLATION,
    }
)

# A limit on the bytes of a batch refuses every message in it.
ABOUT_THE_BATCH = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE})

log = structlog.get_logger("ingest.dead_letter")


class Channel(Protocol):
    """What of `kafka.Channel` is used here."""

    produce: Callable[..., None]
    fatal: Any

    def poll(self) -> None:
        """Serve delivery reports."""

    def renew(self) -> bool:
        """Replace the producer."""

    def suspect(self, error: Any) -> None:
        """The producer is dead."""

    def set_password(self, password: str) -> None:
        """Authenticate with this."""

    def discard(self) -> None:
        """Report every unfinished record as failed."""


class Stage(IntEnum):
    """What is tried, in this order."""

    ALONE = 0  # in a batch of its own: a limit on batches refuses small messages together with a large one
    WHOLE = 1  # in the dead-letter topic as one record
    PARTS = 2  # in the dead-letter topic as numbered parts, halved until they fit


class _Letter:
    """One refused message on its way; knows which reports of the current attempt are still out."""

    __slots__ = ("error", "outstanding", "part_bytes", "pending", "reason", "stage")

    def __init__(self, pending: Pending, reason: str, stage: Stage) -> None:
        self.pending, self.reason, self.stage = pending, reason, stage
        self.part_bytes = FIRST_PART_BYTES
        self.outstanding = 0
        self.error: Any = None


class Refused:
    """Finds each refused message a place, for ever; settles it only when all its bytes are in Kafka.

    Dead-letter records keep key, value and the `iot` header, and say why in `iot-error`. A message in parts has `iot-part`
    "i/n" (1-based) on each; parts with the same key, `iot` header and n joined in order are the payload.
    """

    def __init__(self, settings: Settings, open_channel: Callable[[], Channel], clock: Callable[[], float] = time.monotonic) -> None:
        """`open_channel` may raise SettingsError, and is tried again."""
        self._settings = settings
        self._open_channel = open_channel
        self._clock = clock
        self._channel: Channel | None = None  # opened at the first refusal: most daemons never need it
        self._fatal: Any = None
        self._renew_at = self._logged_at = 0.0
        self._renewal_delay = FIRST_RENEWAL_SECONDS
        self._logged = ""
        self.problem: str | None = None
        """What is in the way to the dead-letter topic, with the setting to look at; None while nothing is."""
        self._due: list[tuple[float, _Letter]] = []
        self._count = self._bytes = 0
        self.alone = 0
        """How many are still being tried alone, and may come back."""

    @property
    def full(self) -> bool:
        """Whether as much is held in memory as the in-flight window may hold; no more should be taken."""
        return self._count >= self._settings.ingest_in_flight_window or self._bytes >= self._settings.ingest_in_flight_bytes

    def take(self, pending: Pending, reason: str) -> None:
        """Own a message that the topic refused, until Kafka has it, or `failed` of its owner gets it back because the refusal was not
        about the message. May be called from a delivery callback; work happens in `poll`."""
        stage = Stage.PARTS if len(pending.value) > self._settings.ingest_max_record_bytes else Stage.ALONE
        self._due.append((0.0, _Letter(pending, reason, stage)))
        self._count += 1
        self.alone += stage is Stage.ALONE
        self._bytes += len(pending.value)

    def poll(self) -> None:
        """Serve delivery reports and start attempts that are due. Raises KafkaStuckError."""
        if self._channel is not None:
            self._channel.poll()
            if self._channel.fatal is not None and not self._revive(self._channel):
                return
        if not self._due:
            return
        now = self._clock()
        ready = [letter for when, letter in self._due if when <= now]
        self._due = [(when, letter) for when, letter in self._due if when > now]
        for letter in ready:
            self._attempt(letter)

    def _revive(self, channel: Channel) -> bool:
        """Replace a producer that has failed for good, with back-off."""
        now = self._clock()
        if channel.fatal is not self._fatal:
            self._fatal = channel.fatal
            self._note(channel.fatal)
            self._renew_at = now + self._renewal_delay
            self._renewal_delay = min(2 * self._renewal_delay, LAST_RENEWAL_SECONDS)
        if now < self._renew_at:
            return False
        if not channel.renew():
            self._renew_at = now + LAST_RENEWAL_SECONDS
            return False
        self._fatal = None
        return True

    def _opened(self) -> Channel | None:
        """The producer; None while librdkafka refuses to make one, because a certificate is half written, say."""
        if self._channel is None:
            try:
                self._channel = self._open_channel()
            except SettingsError as error:
                self._note(error)
        return self._channel

    def _note(self, error: Any) -> None:
        """An error that says nothing about the message."""
        reason = str(error) if isinstance(error, BufferError | SettingsError) else cause(error, self._settings)
        self.problem = f"Kafka: dead-letter topic {self._settings.kafka_dead_letter_topic}: {reason} (IOT_KAFKA_DEAD_LETTER_TOPIC)"
        if self.problem != self._logged or self._clock() - self._logged_at > REPEAT_SECONDS:
            self._logged, self._logged_at = self.problem, self._clock()
            log.warning("dead_letter_delayed", reason=reason, waiting=self._count, topic=self._settings.kafka_dead_letter_topic)

    def renew(self) -> None:
        """Use the certificates that the files hold now."""
        if self._channel is not None:
            self._channel.renew()

    def set_password(self, password: str) -> None:
        """Authenticate with this from now on."""
        if self._channel is not None:
            self._channel.set_password(password)

    def _records(self, letter: _Letter) -> list[tuple[str, bytes, list[tuple[str, bytes]]]]:
        """Topic, value and headers of the records of the letter's next attempt."""
        value = letter.pending.value
        headers = [(HEADER, letter.pending.header)]
        if letter.stage is Stage.ALONE:
            return [(self._settings.kafka_topic, value, headers)]
        headers.append((ERROR_HEADER, letter.reason.encode()))
        topic = self._settings.kafka_dead_letter_topic
        if letter.stage is Stage.WHOLE:
            return [(topic, value, headers)]
        count = max(1, -(-len(value) // letter.part_bytes))
        return [
            (
                topic,
                value[index * letter.part_bytes : (index + 1) * letter.part_bytes],
                [*headers, (PART_HEADER, f"{index + 1}/{count}".encode())],
            )
            for index in range(count)
        ]

    def _attempt(self, letter: _Letter) -> None:
        channel = self._opened()
        if channel is None:
            self._due.append((self._clock() + RETRY_SECONDS, letter))
            return
        records = self._records(letter)
        letter.error = None
        letter.outstanding = len(records)

        def report(error: Any, _message: Any) -> None:
            letter.outstanding -= 1
            letter.error = letter.error or error
            if not letter.outstanding:
                self._finish(letter)

        for topic, value, headers in records:
            try:
                channel.produce(topic, value, letter.pending.key, on_delivery=report, headers=headers)
            except BufferError as error:
                report(error, None)
            except KafkaException as error:
                report(error.args[0], None)

    def _finish(self, letter: _Letter) -> None:
        error = letter.error
        if error is None:
            self.problem = None
            self._renewal_delay = FIRST_RENEWAL_SECONDS
            self._let_go(letter)
            letter.pending.arrive(State.DELIVERED if letter.stage is Stage.ALONE else State.DEAD_LETTERED)
            if letter.stage is not Stage.ALONE:
                log.warning(
                    "dead_lettered",
                    reason=letter.reason,
                    payload_bytes=len(letter.pending.value),
                    topic=self._settings.kafka_dead_letter_topic,
                )
            return
        if isinstance(error, BufferError) or error.code() not in ABOUT_THE_MESSAGE:
            self._failed(letter, error)
        elif letter.stage < Stage.PARTS:
            self.alone -= letter.stage is Stage.ALONE
            letter.stage = Stage(letter.stage + 1)
            self._due.append((0.0, letter))
        elif letter.part_bytes > LEAST_PART_BYTES:
            letter.part_bytes //= 2
            self._due.append((0.0, letter))
        else:
            log.error(
                "dead_letter_refused",
                reason=str(error),
                topic=self._settings.kafka_dead_letter_topic,
                setting="IOT_KAFKA_DEAD_LETTER_TOPIC",
            )
            letter.part_bytes = FIRST_PART_BYTES
            self._due.append((self._clock() + 30 * RETRY_SECONDS, letter))

    def _failed(self, letter: _Letter, error: Any) -> None:
        """The error says nothing about the message."""
        channel = self._channel
        if channel is not None and not isinstance(error, BufferError):
            if error.fatal() or error.code() == KafkaError._FATAL:
                channel.suspect(error)
            elif letter.stage is Stage.ALONE and channel.fatal is None:
                self._let_go(letter)
                letter.pending(error, None)
                return
            self._note(error if channel.fatal is None else channel.fatal)
        self._due.append((self._clock() + RETRY_SECONDS, letter))

    def _let_go(self, letter: _Letter) -> None:
        self._count -= 1
        self._bytes -= len(letter.pending.value)
        self.alone -= letter.stage is Stage.ALONE

    def close(self) -> None:
        """Drop what is unfinished; it was not acknowledged, or it is in the spool."""
        if self._channel is not None:
            self._channel.discard()
