"""What Kafka says about a topic: settings as they are in force, replicas, and which of them are there."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType  # type: ignore[attr-defined]

TIMEOUT_SECONDS: Final = 15
_SOURCES: Final = {1: "topic", 2: "broker, dynamic", 3: "cluster default", 4: "server.properties", 5: "Kafka's default"}


@dataclass(frozen=True)
class Value:
    """A setting as it is in force, and where it comes from."""

    value: str
    source: str


@dataclass(frozen=True)
class TopicState:
    """A topic as it is. `config` is empty when we may not read it; `brokers` are those that are alive."""

    name: str
    config: dict[str, Value]
    brokers: int = 1
    partitions: int = 1
    replicas: int = 1
    """Of the partition that has fewest."""
    leaderless: int = 0
    under_replicated: int = 0
    in_sync: int = 1
    """Of the partition that has fewest."""

    def number(self, setting: str) -> int | None:
        """A setting's value; None when Kafka does not tell it."""
        return int(self.config[setting].value) if setting in self.config else None


def read_topics(admin: AdminClient, names: Iterable[str]) -> dict[str, TopicState]:
    """The topics that exist, each at most about 15 s.

    Raises:
        KafkaException: no answer. A setting that we may not read is none: the state has no config then.
    """
    cluster = admin.list_topics(timeout=TIMEOUT_SECONDS)
    found: dict[str, TopicState] = {}
    for name in names:
        if name not in cluster.topics:
            continue
        partitions = list(cluster.topics[name].partitions.values())
        if not partitions:  # just made: the metadata has no more than its name yet
            raise KafkaException(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART))
        found[name] = TopicState(
            name,
            _config(admin, name),
            brokers=len(cluster.brokers),
            partitions=len(partitions),
            replicas=min(len(item.replicas) for item in partitions),
            leaderless=sum(item.leader < 0 for item in partitions),
            under_replicated=sum(len(item.isrs) < len(item.replicas) for item in partitions),
            in_sync=min(len(item.isrs) for item in partitions),
        )
    return found


def _config(admin: AdminClient, topic: str) -> dict[str, Value]:
    resource = ConfigResource(ResourceType.TOPIC, topic)
    try:
        entries = admin.describe_configs([resource], request_timeout=TIMEOUT_SECONDS)[resource].result()
    except KafkaException as error:
        if error.args[0].code() in (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED):
            return {}
        raise
    return {name: Value(entry.value, _SOURCES.get(entry.source, "unknown")) for name, entry in entries.items() if entry.value is not None}
