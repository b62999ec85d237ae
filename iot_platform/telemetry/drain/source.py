"""Consumes assigned Kafka partitions in batches bounded by count, bytes and time."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from iot_platform.kafka.causes import ConnectionCauses
from iot_platform.kafka.rights import reading
from iot_platform.settings import Settings
from iot_platform.telemetry.errors import TransientError
from iot_platform.telemetry.records import Generations, Ranges, Records, to_records

SLICE: Final = 512
"""Messages per consume() call: bounds how far a batch can overshoot its bytes (by 512 messages of Kafka's largest size)."""

CONSUMER: Final[dict[str, str | int | float | bool]] = {
    "group.id": "iot-drain",  # required by librdkafka; never committed to
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "auto.offset.reset": "error",  # an offset that Kafka does not have is our business, never skipped
    "enable.partition.eof": True,
    "fetch.wait.max.ms": 250,
    # A fetch without a whole answer by then: the link is half-open. What one fetch brings must fit a slow link in that time.
    "socket.timeout.ms": 30_000,
    "fetch.max.bytes": 4 * 1024 * 1024,
    "queued.max.messages.kbytes": 32 * 1024,
    "fetch.message.max.bytes": 4 * 1024 * 1024,
    "check.crcs": True,
    "log_level": 0,
    "statistics.interval.ms": 0,
}


@dataclass(frozen=True, slots=True)
class Start:
    """Where to begin in a partition. With the leader epoch of the record before it, Kafka refuses an offset of a log that was cut."""

    offset: int
    leader_epoch: int | None = None

    def place(self, topic: str, partition: int) -> TopicPartition:
        """For `assign`."""
        if self.leader_epoch is None:
            return TopicPartition(topic, partition, self.offset)
        return TopicPartition(topic, partition, self.offset, leader_epoch=self.leader_epoch)


class KafkaSource:
    """Reads partitions from given offsets. Owned by one thread; `close` it from the same one."""

    def __init__(self, settings: Settings, topic: str | None = None) -> None:
        """`topic`: another one than that of the messages."""
        self._settings = settings
        self._topic = topic or settings.kafka_topic
        self._causes = ConnectionCauses(settings)
        self.consumer = Consumer({**self._causes.config, **CONSUMER, "error_cb": self._on_error}, logger=None)
        self.position: dict[int, int] = {}
        self._generations: Generations = {}
        self._was_away = False
        self._empty: dict[int, int] = {}
        self._bytes_per_message = 256.0

    def assign(self, starts: Mapping[int, Start], generations: Generations | None = None) -> None:
        """Begin there (by partition); `generations` are noted on the records."""
        self.position = {partition: start.offset for partition, start in starts.items()}
        self._generations = generations or {}
        self._was_away = False
        self.consumer.assign([start.place(self._topic, partition) for partition, start in starts.items()])

    def _on_error(self, error: KafkaError) -> None:
        """Called from within consume()."""
        self._causes.note(error)
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self._was_away = True

    def read(self, stopped: Callable[[], bool]) -> Records | None:
        """The next records: as many as fit a batch, or what came within the commit interval, or None if nothing came.

        Raises:
            TransientError: Kafka refuses an offset or a partition, or has records again after it was away: it may have come back with
                another log. The next open verifies the log.
        """
        limit, size_limit = self._settings.drain_batch_records, self._settings.drain_batch_bytes
        deadline = time.monotonic() + self._settings.drain_commit_interval_seconds
        start = dict(self.position)
        self._empty = {}
        batch: list[Message] = []
        size = 0
        while len(batch) < limit and size < size_limit and not stopped():
            wait = deadline - time.monotonic()
            room = min(SLICE, limit - len(batch), max(1, int((size_limit - size) / self._bytes_per_message)))
            got = self.consumer.consume(room, timeout=max(wait, 0))
            if got:
                messages = self._events(got)
                if messages and self._was_away:
                    raise TransientError("Kafka was away: whether its log is still the one that was drained must be seen again")
                batch += messages
                size += self._measure(messages)
            if wait <= 0:
                break
        ranges: Ranges = {
            partition: (start[partition], position) for partition, position in self.position.items() if position > start[partition]
        }
        return to_records(batch, ranges, self._empty, self._generations) if ranges else None

    def close(self) -> None:
        """Give up the assignment; never blocks for long, and nothing is committed to Kafka."""
        self.consumer.close()

    def _measure(self, messages: list[Message]) -> int:
        size = sum(map(len, messages))
        if messages:
            self._bytes_per_message = max(1.0, size / len(messages))
        return size

    def _events(self, got: list[Message]) -> list[Message]:
        """The messages among what was consumed; positions follow them, and end-of-partition events."""
        messages = got
        if any(error is not None for error in map(Message.error, got)):
            messages = [message for message in got if message.error() is None]
        position = self.position
        for number, at in zip(map(Message.partition, messages), map(Message.offset, messages), strict=True):
            assert number is not None and at is not None  # noqa: S101, PT018 - for the type checker: every record has both
            if at != position[number]:
                self._skip(number, at)
            position[number] = at + 1
        for event in got if len(messages) < len(got) else ():
            if (error := event.error()) is None:
                continue
            if error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
                continue  # librdkafka looks for the group's coordinator by itself; who assigns partitions needs none
            partition, offset = event.partition(), event.offset()
            if error.code() != KafkaError._PARTITION_EOF:
                raise self._transient(error, partition)
            if partition is not None and offset is not None and offset > self.position.get(partition, offset):
                self._skip(partition, offset)
        return messages

    def _skip(self, partition: int, offset: int) -> None:
        """Kafka went on at this offset: it has no record for those before it."""
        self._empty[partition] = self._empty.get(partition, 0) + offset - self.position[partition]
        self.position[partition] = offset

    def _transient(self, error: KafkaError, partition: int | None) -> TransientError:
        text = self._causes.explain(error, needs=reading(self._topic))
        failure = TransientError(f"{text} (partition {partition})")
        failure.__cause__ = KafkaException(error)
        return failure
