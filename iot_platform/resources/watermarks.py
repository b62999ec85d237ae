"""Where the Kafka topic begins and ends, asked without joining any consumer group."""

from collections.abc import Collection
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, ClusterMetadata, OffsetSpec  # type: ignore[attr-defined]

from ingest_daemon.partitions import degraded, unavailable
from iot_platform.kafka.causes import ConnectionCauses
from iot_platform.kafka.rights import reading
from iot_platform.settings import Settings
from iot_platform.telemetry.offsets import TopicIdentity, ask_watermarks, identify
from iot_platform.telemetry.offsets import Watermarks as LogEnds

_NO_LEADER: Final = (KafkaError._NOENT, KafkaError.LEADER_NOT_AVAILABLE, KafkaError._UNKNOWN_PARTITION)
"""librdkafka's answers where no partition that it was asked for has a leader; they don't say which and why."""


class KafkaUnavailableError(Exception):
    """Kafka did not answer, or the topic is missing; the message names the setting to look at. Retry later."""


@dataclass(frozen=True)
class Watermarks:
    """First and next offset of every partition of the topic."""

    begin: dict[int, int]
    end: dict[int, int]


@dataclass(frozen=True)
class Look:
    """What could be seen of the topic: which one it is, what the log of each partition holds, what the other partitions wait for, which
    copies lag behind."""

    identity: TopicIdentity
    marks: dict[int, LogEnds]
    waiting: str | None
    degraded: str | None

    def complete(self) -> tuple[TopicIdentity, dict[int, LogEnds]]:
        """Identity and marks, where every partition has answered.

        Raises:
            KafkaUnavailableError: one has not; the message says what it waits for.
        """
        if self.waiting:
            raise KafkaUnavailableError(f"Kafka: {self.waiting}")
        return self.identity, self.marks


class TopicOffsets:
    """Asks the brokers for partitions and offsets of the configured topic. One instance per thread; no group, no consumer."""

    def __init__(self, settings: Settings, timeout_seconds: float = 5.0) -> None:
        self._topic = settings.kafka_topic
        self._timeout = timeout_seconds
        self._causes = ConnectionCauses(settings)
        try:
            self._admin = AdminClient({**self._causes.config, "log_level": 0, "socket.timeout.ms": int(timeout_seconds * 1000)})
        except KafkaException as error:  # a certificate file that can't be read
            raise KafkaUnavailableError(self._causes.explain(error)) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        del self._admin  # librdkafka closes its connections when the handle goes

    def partitions(self) -> tuple[int, ...]:
        """Numbers of the topic's partitions, ascending.

        Raises:
            KafkaUnavailableError: no broker answered, or there is no such topic.
        """
        return tuple(sorted(self._metadata().topics[self._topic].partitions))

    def end(self, partitions: tuple[int, ...]) -> dict[int, int]:
        """The offset that the next record of each partition will get."""
        return self._offsets(partitions, OffsetSpec.latest())  # type: ignore[no-untyped-call]

    def begin(self, partitions: tuple[int, ...]) -> dict[int, int]:
        """The oldest offset that each partition still holds."""
        return self._offsets(partitions, OffsetSpec.earliest()) if partitions else {}  # type: ignore[no-untyped-call]

    def watermarks(self, partitions: tuple[int, ...]) -> Watermarks:
        """First and next offset of each partition."""
        return Watermarks(begin=self.begin(partitions), end=self.end(partitions))

    def look(self) -> Look:
        """What can be seen now; partitions without an answer cost their figures and never the others'. At most four time-outs long.

        Raises:
            KafkaUnavailableError: no broker answered, or there is no such topic.
        """
        metadata = self._metadata()
        led = [number for number, item in metadata.topics[self._topic].partitions.items() if item.leader >= 0]
        try:
            identity = identify(self._admin, self._topic, self._timeout)
            marks = ask_watermarks(self._admin, self._topic, led, self._timeout)
        except KafkaException as error:
            raise self._unavailable(error) from error
        waiting = unavailable(metadata, self._topic, sorted(set(led) - set(marks)))
        return Look(identity, marks, waiting, degraded(metadata, self._topic))

    def _offsets(self, partitions: tuple[int, ...], spec: OffsetSpec) -> dict[int, int]:
        try:
            found = self._answers(partitions, spec)
        except KafkaException as error:
            raise self._unavailable(error) from error
        if silent := [partition for partition, offset in found.items() if offset < 0]:
            raise KafkaUnavailableError(f"Kafka: {unavailable(self._metadata(), self._topic, silent)}")
        return found

    def _answers(self, partitions: Collection[int], spec: OffsetSpec) -> dict[int, int]:
        """Negative where the leader is silent: librdkafka has no error for that."""
        if not partitions:
            return {}
        wanted = {TopicPartition(self._topic, partition): spec for partition in partitions}
        futures = self._admin.list_offsets(wanted, request_timeout=self._timeout)
        return {item.partition: int(future.result().offset) for item, future in futures.items()}

    def _metadata(self) -> ClusterMetadata:
        try:
            found = self._admin.list_topics(self._topic, timeout=self._timeout)
        except KafkaException as error:
            raise self._unavailable(error) from error
        refused = found.topics[self._topic].error
        if refused is not None and refused.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            raise self._unavailable(KafkaException(refused))
        if refused is not None:
            raise KafkaUnavailableError(
                f"Kafka topic {self._topic} (IOT_KAFKA_TOPIC): {refused.str()}. `iot up` creates it on the local Kafka."
            )
        return found

    def _unavailable(self, error: KafkaException) -> KafkaUnavailableError:
        if error.args[0].code() in _NO_LEADER and (waiting := unavailable(self._metadata(), self._topic)):
            return KafkaUnavailableError(f"Kafka: {waiting}")
        return KafkaUnavailableError(self._causes.explain(error, self._admin.poll, reading(self._topic)))
