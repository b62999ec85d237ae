"""What a topic's partitions wait for, read from the cluster's metadata: leaders that are missing or silent, copies that lag behind."""

from collections import defaultdict
from collections.abc import Collection, Iterable
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]

# A leader that was just elected, or is none any more: it says so itself, and passes within seconds.
_NOT_YET = frozenset({KafkaError.OFFSET_NOT_AVAILABLE, KafkaError.LEADER_NOT_AVAILABLE, KafkaError.NOT_LEADER_FOR_PARTITION})


def silent(admin: Any, metadata: Any, topic: str, seconds: float) -> list[int]:
    """Partitions whose leader, as the cluster names it, does not answer in time. Blocks for at most so many seconds.

    Brokers without a majority of their controllers keep naming leaders that are dead, and librdkafka reports such a partition without an
    error: its offset is negative.

    Raises:
        KafkaException: anything else than silence.
    """
    led = [number for number, partition in metadata.topics[topic].partitions.items() if partition.leader >= 0]
    if not led:
        return []
    wanted = {TopicPartition(topic, number): OffsetSpec.latest() for number in led}  # type: ignore[no-untyped-call]
    answers = admin.list_offsets(wanted, request_timeout=seconds)
    return sorted(item.partition for item, answer in answers.items() if _is_silent(answer))


def _is_silent(answer: Any) -> bool:
    try:
        return bool(answer.result().offset < 0)
    except KafkaException as error:
        if error.args[0].code() in _NOT_YET:
            return True
        raise


def unavailable(metadata: Any, topic: str, not_answering: Collection[int] = ()) -> str | None:
    """One line about the partitions that cannot be written to or read from now, and the brokers that they wait for; None without such."""
    partitions = metadata.topics[topic].partitions
    texts = []
    if leaderless := sorted(number for number, partition in partitions.items() if partition.leader < 0):
        brokers = _missing(metadata, [partitions[number] for number in leaderless])
        waits = f"waiting for {_brokers(brokers)} to come back" if brokers else "although all its brokers are there"
        texts.append(f"{_partitions(leaderless)} of {topic} without a leader, {waits}")
    leaders: dict[int, list[int]] = defaultdict(list)
    for number in not_answering:
        leaders[partitions[number].leader].append(number)
    for leader, numbers in sorted(leaders.items()):
        at = f" at {metadata.brokers[leader].host}:{metadata.brokers[leader].port}" if leader in metadata.brokers else ""
        texts.append(f"broker {leader}{at}, leader of {_partitions(sorted(numbers))} of {topic}, does not answer")
    return "; ".join(texts) or None


def degraded(metadata: Any, topic: str) -> str | None:
    """One line about copies that are not in sync, which stops nothing as long as min.insync.replicas are; None if all are."""
    partitions = metadata.topics[topic].partitions
    behind = sorted(number for number, partition in partitions.items() if len(partition.isrs) < len(partition.replicas))
    if not behind:
        return None
    least = min((partitions[number] for number in behind), key=lambda partition: len(partition.isrs))
    brokers = _missing(metadata, [partitions[number] for number in behind])
    why = f"{_brokers(brokers)} missing, " if brokers else ""
    return f"{why}{len(least.isrs)} of {len(least.replicas)} copies in sync of {_partitions(behind)} of {topic}"


def _missing(metadata: Any, partitions: Iterable[Any]) -> list[int]:
    """Brokers that have copies and are not there."""
    return sorted({broker for partition in partitions for broker in partition.replicas} - set(metadata.brokers))


def _brokers(numbers: list[int]) -> str:
    return f"broker{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"


def _partitions(numbers: list[int]) -> str:
    return f"partition{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"
