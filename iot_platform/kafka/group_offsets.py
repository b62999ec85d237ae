"""Copies the drained offsets into a consumer group: Kafka's own tools show the drain and its lag, and a database that was restored is
compared with them. No drain ever begins there."""

import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from typing import Any, Final

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_fixed

from iot_platform.kafka.causes import ConnectionCauses
from iot_platform.kafka.errors import KafkaUnavailableError
from iot_platform.kafka.rights import Right, reading, refused_right
from iot_platform.logs import get_logger
from iot_platform.settings import Settings

NOTE_SECONDS: Final = 60.0
"""Kafka forgets a group's offsets after a week without a commit: also when nothing moved they are noted again."""
REQUEST_SECONDS: Final = 10.0
PASSING_SECONDS: Final = 5.0
PATIENCE_SECONDS: Final = 30.0
"""How long somebody waits who has to know: a broker that has just started takes that long to coordinate its groups."""
OFF: Final = "off"
# The coordinator is just starting, or moving to another broker: nothing to tell anybody.
_PASSING: Final = frozenset(
    {KafkaError.COORDINATOR_LOAD_IN_PROGRESS, KafkaError.COORDINATOR_NOT_AVAILABLE, KafkaError.NOT_COORDINATOR, KafkaError._WAIT_COORD}
)

log = get_logger(__name__)


class GroupOffsets:
    """Of one process, used by one thread at a time. Keeps a Kafka connection of its own: `close` it."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings, self._clock = settings, clock
        self._causes = ConnectionCauses(settings)
        self._admin: AdminClient | None = None
        self._answer: Future[Any] | None = None
        self._due = clock()
        self._said: int | None = None

    def note(self, offsets: Mapping[int, int], remark: Callable[[int], str] = lambda _partition: "") -> None:
        """Copy partition → next offset, if a minute has passed since the last time; with each a remark, asked for only then, of 4 kB at
        most. Never blocks and never raises for Kafka's sake: the answer is looked at by a later call, and what is wrong is logged, once
        for each kind of failure in a row."""
        if self._settings.kafka_drain_group == OFF:
            return
        if self._answer is not None and self._answer.done():
            self._look(self._answer)
            self._answer = None
        if not offsets or self._clock() < self._due:
            return
        self._due = self._clock() + NOTE_SECONDS
        try:
            self._answer = self._ask({partition: (offset, remark(partition)) for partition, offset in offsets.items()})
        except KafkaException as error:  # a certificate file that can't be read
            self._failed(error.args[0])

    def close(self) -> None:
        """Give up the connection, and what is not answered yet."""
        admin, self._admin, self._answer = self._admin, None, None
        if admin is not None:
            with admin:
                pass

    def _ask(self, noted: Mapping[int, tuple[int, str]]) -> "Future[Any]":
        if self._admin is None:
            self._admin = AdminClient({**self._causes.config, "log_level": 0})
        group, topic = self._settings.kafka_drain_group, self._settings.kafka_topic
        partitions = [TopicPartition(topic, partition, offset, remark) for partition, (offset, remark) in noted.items()]
        wanted = ConsumerGroupTopicPartitions(group, partitions)
        answer: Future[Any] = self._admin.alter_consumer_group_offsets([wanted], request_timeout=REQUEST_SECONDS)[group]
        return answer

    def _look(self, answer: "Future[Any]") -> None:
        try:
            _require_each(answer.result().topic_partitions)
        except KafkaException as error:
            self._failed(error.args[0])
        else:
            self._said = None

    def _failed(self, error: KafkaError) -> None:
        if error.code() in _PASSING:
            self._due = self._clock() + PASSING_SECONDS
            return
        if error.code() != self._said:
            self._said = error.code()
            log.warning(
                "drain_group_not_noted", group=self._settings.kafka_drain_group, reason=self._reason(error), setting="IOT_KAFKA_DRAIN_GROUP"
            )
        self.close()  # the next connection has the password and the certificates that the files hold then

    def _reason(self, error: KafkaError) -> str:
        if error.code() == KafkaError.UNKNOWN_MEMBER_ID:
            return "a consumer has subscribed under this name: take a name that only the drain has"
        group, topic = Right(("Read",), "group", self._settings.kafka_drain_group), reading(self._settings.kafka_topic)
        if error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            return refused_right(self._settings, error, topic)
        return self._causes.explain(error, self._admin.poll if self._admin else None, group)


def write_noted(settings: Settings, noted: Mapping[int, tuple[int, str]]) -> bool:
    """Note partition → next offset and remark now; False where IOT_KAFKA_DRAIN_GROUP is off. Blocks for up to a minute.

    Raises:
        KafkaUnavailableError: Kafka does not answer, or refuses.
    """
    group, causes = settings.kafka_drain_group, ConnectionCauses(settings)
    if group == OFF or not noted:
        return False
    partitions = [TopicPartition(settings.kafka_topic, partition, offset, remark) for partition, (offset, remark) in noted.items()]
    wanted = ConsumerGroupTopicPartitions(group, partitions)

    def write(admin: AdminClient) -> None:
        answer = admin.alter_consumer_group_offsets([wanted], request_timeout=REQUEST_SECONDS)[group].result()
        _require_each(answer.topic_partitions)

    try:
        with AdminClient({**causes.config, "log_level": 0}) as admin:
            _patiently(write, admin)
    except KafkaException as error:
        raise KafkaUnavailableError(causes.explain(error, needs=Right(("Read",), "group", group))) from error
    return True


def read_noted(settings: Settings) -> dict[int, tuple[int, str]]:
    """Partition → next offset and remark, as noted last; empty where nothing is. Blocks for up to a minute.

    Raises:
        KafkaUnavailableError: Kafka does not answer, or refuses.
    """
    group, topic, causes = settings.kafka_drain_group, settings.kafka_topic, ConnectionCauses(settings)
    if group == OFF:
        return {}
    # A consumer that never subscribes, not AdminClient.list_consumer_group_offsets: where the group's coordinator is not known yet, that
    # ends the process (confluent-kafka 2.16, segmentation fault); this one asks again.
    consumer = Consumer({**causes.config, "group.id": group, "enable.auto.commit": False, "log_level": 0})
    try:
        known = consumer.list_topics(topic, timeout=REQUEST_SECONDS).topics[topic]
        if known.error is not None:
            raise KafkaException(known.error)
        asked = [TopicPartition(topic, number) for number in known.partitions]
        found: list[TopicPartition] = _patiently(consumer.committed, asked, 2 * REQUEST_SECONDS)
        _require_each(found)
    except KafkaException as error:
        raise KafkaUnavailableError(causes.explain(error, needs=Right(("Read",), "group", group))) from error
    finally:
        consumer.close()
    return {item.partition: (item.offset, item.metadata or "") for item in found if item.offset >= 0}


_patiently: Final = Retrying(
    retry=retry_if_exception(lambda error: isinstance(error, KafkaException) and error.args[0].code() in _PASSING),
    stop=stop_after_delay(PATIENCE_SECONDS),
    wait=wait_fixed(0.5),
    reraise=True,
)


def _require_each(partitions: Iterable[TopicPartition]) -> None:
    if failed := [item.error for item in partitions if item.error is not None]:
        raise KafkaException(failed[0])
