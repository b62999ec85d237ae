"""Offsets asked of the leaders: librdkafka reports neither a silent nor a missing leader as an error."""

from collections.abc import Collection
from contextlib import suppress
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, ListOffsetsResultInfo, OffsetSpec  # type: ignore[attr-defined]

from ingest_daemon.partitions import degraded, silent, unavailable
from iot_platform.kafka.causes import ConnectionCauses
from iot_platform.kafka.rights import reading
from iot_platform.settings import Settings

LOOK_SECONDS: Final = 3.0
_NO_LEADER: Final = frozenset(
    {
        KafkaError._NOENT,
        KafkaError._UNKNOWN_PARTITION,
        KafkaError._TIMED_OUT,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.OFFSET_NOT_AVAILABLE,
    }
)


def list_offsets(
    admin: AdminClient, topic: str, partitions: Collection[int], spec: OffsetSpec, seconds: float
) -> dict[int, ListOffsetsResultInfo]:
    """The answer of every partition's leader. Blocks for at most three times so many seconds.

    Raises:
        KafkaException: also where librdkafka gives an offset of -1001 instead (a leader that is gone, and no majority of controllers to
            name another one). LEADER_NOT_AVAILABLE comes with the partitions and the brokers that they wait for.
    """
    if not partitions:
        return {}
    wanted = {TopicPartition(topic, partition): spec for partition in partitions}
    try:
        answers = admin.list_offsets(wanted, request_timeout=seconds)
        found = {item.partition: answer.result() for item, answer in answers.items()}
    except KafkaException as error:
        if error.args[0].code() in _NO_LEADER and (text := waiting(admin, topic, seconds)):
            raise _not_available(text) from error
        raise
    if mute := [partition for partition, answer in found.items() if answer.offset < 0]:
        text = unavailable(admin.list_topics(topic, timeout=seconds), topic, mute)
        raise _not_available(text or f"partitions {mute} of {topic} do not answer")
    return found


def waiting(admin: AdminClient, topic: str, seconds: float) -> str | None:
    """What partitions wait for, as a sentence for people; None where each has a leader that answers.

    Raises:
        KafkaException: no broker answers at all.
    """
    metadata = admin.list_topics(topic, timeout=seconds)
    return unavailable(metadata, topic, silent(admin, metadata, topic, seconds))


def reason(admin: AdminClient, topic: str, error: KafkaException, causes: ConnectionCauses, seconds: float) -> str:
    """Why a request about the topic failed, one sentence: the brokers that it waits for, where Kafka answers in part (a request to a
    controller or a coordinator that is gone only times out), else what the causes know. Blocks for a few seconds at most."""
    if error.args[0].code() == KafkaError._TIMED_OUT:
        with suppress(KafkaException):
            if text := waiting(admin, topic, min(seconds, LOOK_SECONDS)):
                return f"Kafka: {text}"
    return causes.explain(error, admin.poll, reading(topic))


def look(settings: Settings, seconds: float) -> tuple[str | None, str | None]:
    """What stands in the way of reading or writing the message topic, and which copies are not in sync; None where there is nothing.

    Raises:
        KafkaException: no broker answers at all.
    """
    options: dict[str, Any] = {**settings.kafka_config(), "log_level": 0}
    with AdminClient(options) as admin:
        metadata = admin.list_topics(settings.kafka_topic, timeout=seconds)
        missing = silent(admin, metadata, settings.kafka_topic, seconds)
        return unavailable(metadata, settings.kafka_topic, missing), degraded(metadata, settings.kafka_topic)


def _not_available(text: str) -> KafkaException:
    return KafkaException(KafkaError(KafkaError.LEADER_NOT_AVAILABLE, text))
