"""Reads one record of each of some Kafka partitions: the one at an offset, or the next one behind it."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from confluent_kafka import Consumer, KafkaError, Message

from iot_platform.telemetry.drain.source import Start
from iot_platform.telemetry.errors import TransientError

PATIENCE_SECONDS: Final = 10.0


@dataclass(frozen=True)
class Nothing:
    """Kafka has no record there; `reason` is its own error text. `refused`: the offset is beyond the log, or the log is another one than
    the leader epoch says; else nothing follows up to the log's end."""

    reason: str
    refused: bool


def peek(consumer: Consumer, topic: str, starts: Mapping[int, Start]) -> dict[int, Message | Nothing]:
    """The first record of each partition from its start on. Replaces the consumer's assignment.

    Raises:
        TransientError: Kafka does not answer, or refuses for a reason that has nothing to do with the offset.
    """
    if not starts:
        return {}
    consumer.assign([start.place(topic, partition) for partition, start in starts.items()])
    found: dict[int, Message | Nothing] = {}
    give_up = time.monotonic() + PATIENCE_SECONDS
    while len(found) < len(starts):
        for message in consumer.consume(len(starts), timeout=0.2):
            partition = message.partition()
            if partition is None or partition in found or partition not in starts:
                continue
            if (error := message.error()) is None:
                found[partition] = message
            elif error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
                continue  # see KafkaSource
            elif error.code() in (KafkaError._PARTITION_EOF, KafkaError._AUTO_OFFSET_RESET):
                found[partition] = Nothing(error.str(), error.code() == KafkaError._AUTO_OFFSET_RESET)
            else:
                raise TransientError(f"Kafka: {error.str()} (partition {partition})")
        if len(found) < len(starts) and time.monotonic() > give_up:
            missing = sorted(starts.keys() - found.keys())
            raise TransientError(f"Kafka gives nothing of partition {missing[0]} of '{topic}' for {PATIENCE_SECONDS:g} s")
    return found
