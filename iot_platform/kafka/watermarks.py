"""Which topic it is and where its partitions begin and end, asked without joining any consumer group."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient, ListOffsetsResultInfo, OffsetSpec  # type: ignore[attr-defined]

from iot_platform.kafka import leaders
from iot_platform.kafka.causes import ConnectionCauses
from iot_platform.kafka.errors import KafkaUnavailableError, TopicMissingError
from iot_platform.settings import Settings

LOOK_SECONDS: Final = 5.0
"""How long a question may take where somebody looks again soon."""
WORK_SECONDS: Final = 10.0
"""How long one may take where work would have to begin anew."""
_EARLIEST: Final = OffsetSpec.earliest()  # type: ignore[no-untyped-call]
_LATEST: Final = OffsetSpec.latest()  # type: ignore[no-untyped-call]
_NEWEST: Final = OffsetSpec.max_timestamp()  # type: ignore[no-untyped-call]


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


class TopicOffsets:
    """Asks the brokers for identity, partitions and offsets of one topic. One instance per thread; no group, no consumer."""

    def __init__(self, settings: Settings, timeout_seconds: float = LOOK_SECONDS, topic: str | None = None) -> None:
        """`timeout_seconds` bounds each question; `topic`: another one than that of the messages.

        Raises:
            KafkaUnavailableError: librdkafka refuses the settings, such as a certificate file that cannot be read.
        """
        self.topic = topic or settings.kafka_topic
        self._timeout = timeout_seconds
        self._causes = ConnectionCauses(settings)
        try:
            self._admin = AdminClient({**self._causes.config, "log_level": 0, "socket.timeout.ms": int(timeout_seconds * 1000)})
        except KafkaException as error:
            raise KafkaUnavailableError(self._causes.explain(error)) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._admin.__exit__(kind, error, trace)

    def partitions(self) -> tuple[int, ...]:
        """Numbers of the topic's partitions, ascending.

        Raises:
            KafkaUnavailableError, TopicMissingError.
        """
        with self._explained():
            topic = self._admin.list_topics(self.topic, timeout=self._timeout).topics[self.topic]
            if topic.error is not None:
                raise KafkaException(topic.error)
        return tuple(sorted(topic.partitions))

    def identity(self) -> TopicIdentity:
        """Which topic it is, in which cluster.

        Raises:
            KafkaUnavailableError, TopicMissingError.
        """
        with self._explained():
            cluster = self._admin.describe_cluster(request_timeout=self._timeout).result()
            asked = self._admin.describe_topics(TopicCollection([self.topic]), request_timeout=self._timeout)
            found = asked[self.topic].result()
        return TopicIdentity(self.topic, cluster.cluster_id, str(found.topic_id), tuple(sorted(item.id for item in found.partitions)))

    def end(self, partitions: tuple[int, ...]) -> dict[int, int]:
        """The offset that the next record of each partition will get.

        Raises:
            KafkaUnavailableError, TopicMissingError.
        """
        return {partition: answer.offset for partition, answer in self._list(partitions, _LATEST).items()}

    def watermarks(self, partitions: Iterable[int]) -> dict[int, Watermarks]:
        """What the logs of these partitions hold now.

        Raises:
            KafkaUnavailableError, TopicMissingError.
        """
        wanted = tuple(partitions)
        low, high = self._list(wanted, _EARLIEST), self._list(wanted, _LATEST)
        return {number: Watermarks(low[number].offset, high[number].offset, high[number].leader_epoch) for number in wanted}

    def newest(self) -> float | None:
        """The latest time that Kafka has stamped a record with (Unix time, seconds); None of an empty topic.

        Raises:
            KafkaUnavailableError, TopicMissingError.
        """
        ends = self.watermarks(self.partitions())
        filled = tuple(number for number, marks in ends.items() if marks.low < marks.high)
        return max((answer.timestamp / 1000 for answer in self._list(filled, _NEWEST).values()), default=None)

    def look(self, partitions: Iterable[int] | None = None) -> tuple[TopicIdentity, dict[int, Watermarks]]:
        """Which topic it is, and what the logs of these of its partitions (None: of all) hold.

        Raises:
            KafkaUnavailableError, TopicMissingError.
        """
        identity = self.identity()
        wanted = identity.partitions if partitions is None else tuple(partitions)
        if absent := sorted(set(wanted) - set(identity.partitions)):
            raise TopicMissingError(f"topic '{self.topic}' has no partition {absent[0]}: it has {len(identity.partitions)}")
        return identity, self.watermarks(wanted)

    def _list(self, partitions: tuple[int, ...], spec: OffsetSpec) -> dict[int, ListOffsetsResultInfo]:
        with self._explained():
            return leaders.list_offsets(self._admin, self.topic, partitions, spec, self._timeout)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Kafka's errors become ours."""
        try:
            yield
        except KafkaException as error:
            if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                text = f"Kafka has no topic '{self.topic}': create it (`iot up` does), or correct IOT_KAFKA_TOPIC"
                raise TopicMissingError(text) from error
            raise KafkaUnavailableError(leaders.reason(self._admin, self.topic, error, self._causes, self._timeout)) from error
