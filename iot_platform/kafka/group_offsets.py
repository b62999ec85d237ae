"""Copies the drained offsets into a consumer group, so that Kafka's own tools show the drain and its lag. Nothing ever reads them back."""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, Final

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from iot_platform.kafka.causes import ConnectionCauses
from iot_platform.kafka.rights import Right, reading, refused_right
from iot_platform.logs import get_logger
from iot_platform.settings import Settings

NOTE_SECONDS: Final = 60.0
"""Kafka forgets a group's offsets after a week without a commit: also when nothing moved they are noted again."""
REQUEST_SECONDS: Final = 10.0
PASSING_SECONDS: Final = 5.0
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

    def note(self, offsets: Mapping[int, int]) -> None:
        """Copy partition → next offset, if a minute has passed since the last time. Never blocks and never raises for Kafka's sake: the
        answer is looked at by a later call, and what is wrong is logged, once for each kind of failure in a row."""
        if self._settings.kafka_drain_group == OFF:
            return
        if self._answer is not None and self._answer.done():
            self._look(self._answer)
            self._answer = None
        if not offsets or self._clock() < self._due:
            return
        self._due = self._clock() + NOTE_SECONDS
        try:
            self._answer = self._ask(offsets)
        except KafkaException as error:  # a certificate file that can't be read
            self._failed(error.args[0])

    def close(self) -> None:
        """Give up the connection, and what is not answered yet."""
        admin, self._admin, self._answer = self._admin, None, None
        if admin is not None:
            with admin:
                pass

    def _ask(self, offsets: Mapping[int, int]) -> "Future[Any]":
        if self._admin is None:
            self._admin = AdminClient({**self._causes.config, "log_level": 0})
        group, topic = self._settings.kafka_drain_group, self._settings.kafka_topic
        wanted = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, partition, offset) for partition, offset in offsets.items()])
        answer: Future[Any] = self._admin.alter_consumer_group_offsets([wanted], request_timeout=REQUEST_SECONDS)[group]
        return answer

    def _look(self, answer: "Future[Any]") -> None:
        try:
            partitions = answer.result().topic_partitions
        except KafkaException as error:
            self._failed(error.args[0])
            return
        if failed := [item.error for item in partitions if item.error is not None]:
            self._failed(failed[0])
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
