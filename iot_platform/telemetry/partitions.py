"""Which topic a partition of ledger, message and quarantine is of: Kafka's, or that of imports."""

from typing import Final

IMPORT_TOPIC: Final = "import"
"""In kafka_offset and ledger, the topic of what came from files: each import is a partition of it, the offset its number of the record."""
FIRST_IMPORT: Final = 1_000_000
"""Partitions from here on are imports: no Kafka topic has as many."""


def topic_of_partition(partition: int, kafka_topic: str) -> str:
    """The topic that a partition is of, as kafka_offset and ledger name it."""
    return IMPORT_TOPIC if partition >= FIRST_IMPORT else kafka_topic
