"""Kafka topics of the platform: creates them as the guarantees need them, and refuses ones that would lose messages."""

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    ConfigResource,
    NewTopic,
    ResourceType,
)
from tenacity import retry, retry_if_exception, stop_after_delay, wait_fixed

from iot_platform.settings import Settings

RETENTION_MS = 7 * 24 * 3600 * 1000
MAX_BATCH_BYTES = 20 * 1024 * 1024  # more than the ingest daemon sends as one record; Kafka's default would dead-letter messages of 1 MiB
_TIMEOUT_SECONDS = 15


class TopicError(Exception):
    """A Kafka topic can't be created, or is configured so that messages would be lost. Retry after following the message."""


def ensure_topics(settings: Settings) -> None:
    """Create the message and dead-letter topics where they don't exist, and check those that do.

    Blocks for up to about a minute. Safe when two processes do it at once.

    Raises:
        TopicError: see there.
    """
    admin = AdminClient({**settings.kafka_config(), "log_level": 4})
    try:
        existing = admin.list_topics(timeout=_TIMEOUT_SECONDS).topics
        wanted = [_message_topic(settings), _dead_letter_topic(settings)]
        missing = [topic for topic in wanted if topic.topic not in existing]
        if missing:
            _create(admin, missing)
        _once_known(_check_timestamps)(admin, settings.kafka_topic)
    except KafkaException as error:
        raise TopicError(f"Kafka at {settings.kafka_bootstrap_servers}: {error.args[0].str()} (IOT_KAFKA_BOOTSTRAP_SERVERS)") from error


def check_topics(settings: Settings) -> str:
    """One line about the message topic as it is; changes nothing.

    Raises:
        TopicError: it does not exist, or is configured so that messages would be lost.
    """
    admin = AdminClient({**settings.kafka_config(), "log_level": 4})
    try:
        topics = admin.list_topics(timeout=_TIMEOUT_SECONDS).topics
        missing = [name for name in (settings.kafka_topic, settings.kafka_dead_letter_topic) if name not in topics]
        if missing:
            raise TopicError(f"no topic {', '.join(missing)}: `iot up` creates it, or create it with LogAppendTime timestamps")
        _check_timestamps(admin, settings.kafka_topic)
    except KafkaException as error:
        raise TopicError(f"Kafka at {settings.kafka_bootstrap_servers}: {error.args[0].str()}") from error
    return f"topic {settings.kafka_topic} has {len(topics[settings.kafka_topic].partitions)} partitions, LogAppendTime"


def _message_topic(settings: Settings) -> NewTopic:
    # LogAppendTime: with CreateTime, retention follows the sender's clock, and a clock a year back gets its messages deleted at once.
    config = {"message.timestamp.type": "LogAppendTime", "retention.ms": str(RETENTION_MS), "cleanup.policy": "delete"}
    config["max.message.bytes"] = str(MAX_BATCH_BYTES)
    return NewTopic(settings.kafka_topic, settings.kafka_partitions, settings.kafka_replication_factor, config=config)


def _dead_letter_topic(settings: Settings) -> NewTopic:
    config = {"message.timestamp.type": "LogAppendTime", "retention.ms": "-1", "cleanup.policy": "delete"}
    return NewTopic(settings.kafka_dead_letter_topic, 1, settings.kafka_replication_factor, config=config)


def _create(admin: AdminClient, topics: list[NewTopic]) -> None:
    for name, future in admin.create_topics(topics, operation_timeout=_TIMEOUT_SECONDS).items():
        try:
            future.result(_TIMEOUT_SECONDS + 5)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise TopicError(f"topic {name} can't be created: {error.args[0].str()}") from error


# Creation is answered before every broker's metadata has the topic.
_once_known = retry(
    retry=retry_if_exception(lambda error: isinstance(error, KafkaException) and error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART),
    wait=wait_fixed(0.1),
    stop=stop_after_delay(_TIMEOUT_SECONDS),
    reraise=True,
)


def _check_timestamps(admin: AdminClient, topic: str) -> None:
    resource = ConfigResource(ResourceType.TOPIC, topic)
    settings = admin.describe_configs([resource])[resource].result(_TIMEOUT_SECONDS)
    kind = settings["message.timestamp.type"].value
    if kind != "LogAppendTime":
        raise TopicError(
            f"topic {topic} has message.timestamp.type={kind}: Kafka would delete or refuse messages of a host with a wrong clock. "
            f"Run: kafka-configs.sh --alter --entity-type topics --entity-name {topic} --add-config message.timestamp.type=LogAppendTime"
        )
