"""Which topic it is and where its partitions begin and end, asked without joining any consumer group."""

from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from iot_platform.kafka import leaders
from iot_platform.kafka.causes import ConnectionCauses
from iot_platform.settings import Settings

KAFKA_TIMEOUT_SECONDS: Final = 10.0


@dataclass(frozen=True)
class TopicIdentity:
    """What distinguishes a topic from a later one of the same name."""

    topic: str
    cluster_id: str
    topic_id: str
    partitions: tuple[int, ...]


@dataclass(frozen=True)
class Watermarks:
    """The log of one partition holds offsets [low, high); leader_epoch is the one of its leader now (None: Kafka does not say)."""

    low: int
    high: int
    leader_epoch: int | None = None


class KafkaUnavailableError(Exception):
    """Kafka did not answer, or the topic is missing; the message names the setting to look at. Retry later."""


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
        self._admin.__exit__(kind, error, trace)

    def partitions(self) -> tuple[int, ...]:
        """Numbers of the topic's partitions, ascending.

        Raises:
            KafkaUnavailableError: no broker answered, or there is no such topic.
        """
        try:
            topic = self._admin.list_topics(self._topic, timeout=self._timeout).topics[self._topic]
        except KafkaException as error:
            raise self._unavailable(error) from error
        if topic.error is not None and topic.error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            raise self._unavailable(KafkaException(topic.error))
        if topic.error is not None:
            raise KafkaUnavailableError(
                f"Kafka topic {self._topic} (IOT_KAFKA_TOPIC): {topic.error.str()}. `iot up` creates it on the local Kafka."
            )
        return tuple(sorted(topic.partitions))

    def end(self, partitions: tuple[int, ...]) -> dict[int, int]:
        """The offset that the next record of each partition will get.

        Raises:
            KafkaUnavailableError: see there.
        """
        try:
            answers = leaders.list_offsets(self._admin, self._topic, partitions, OffsetSpec.latest(), self._timeout)  # type: ignore[no-untyped-call]
        except KafkaException as error:
            raise self._unavailable(error) from error
        return {partition: answer.offset for partition, answer in answers.items()}

    def look(self) -> tuple[TopicIdentity, dict[int, Watermarks]]:
        """Which topic it is, and what the log of each partition holds.

        Raises:
            KafkaUnavailableError: no broker answered, or there is no such topic.
        """
        try:
            identity = identify(self._admin, self._topic, self._timeout)
            return identity, ask_watermarks(self._admin, self._topic, identity.partitions, self._timeout)
        except KafkaException as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: KafkaException) -> KafkaUnavailableError:
        if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            return KafkaUnavailableError(f"Kafka has no topic {self._topic} (IOT_KAFKA_TOPIC). `iot up` creates it on the local Kafka.")
        return KafkaUnavailableError(leaders.reason(self._admin, self._topic, error, self._causes, self._timeout))


def identify(admin: AdminClient, topic: str, timeout_seconds: float = KAFKA_TIMEOUT_SECONDS) -> TopicIdentity:
    """Ask Kafka for a topic. Raises KafkaException."""
    cluster = admin.describe_cluster(request_timeout=timeout_seconds).result()
    found = admin.describe_topics(TopicCollection([topic]), request_timeout=timeout_seconds)[topic].result()
    return TopicIdentity(topic, cluster.cluster_id, str(found.topic_id), tuple(sorted(item.id for item in found.partitions)))


def ask_watermarks(
    admin: AdminClient, topic: str, partitions: tuple[int, ...], timeout_seconds: float = KAFKA_TIMEOUT_SECONDS
) -> dict[int, Watermarks]:
    """Ask Kafka what the log of each partition holds. Raises KafkaException."""
    low, high = (
        leaders.list_offsets(admin, topic, partitions, spec, timeout_seconds)
        for spec in (OffsetSpec.earliest(), OffsetSpec.latest())  # type: ignore[no-untyped-call]
    )
    return {number: Watermarks(low[number].offset, high[number].offset, high[number].leader_epoch) for number in partitions}
