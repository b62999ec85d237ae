"""What makes two records the same MQTT message: client, packet id, topic and bytes, within one Kafka partition."""

import hashlib
from collections.abc import Sequence
from typing import Any

from iot_platform.telemetry.records import Records, topic_of

Key = tuple[int, str, int, bytes, bytes]
"""Kafka partition, MQTT client id, packet id, topic, SHA-256 of the payload."""


def key_of(records: Records, row: int) -> Key:
    """The key of a record in hand; its header must be readable."""
    envelope = records.envelope
    return (
        int(records.partition[row]),
        envelope.connections[envelope.connection[row]][0],
        int(envelope.packet_id[row]),
        records.topics[row] or b"",
        hashlib.sha256(records.payloads[row] or b"").digest(),
    )


def stored_key(client: str, row: Sequence[Any]) -> Key:
    """The key of a stored record: its row begins with partition, packet id, topic, topic_bytes (or null), SHA-256 of the payload."""
    partition, packet, topic, topic_bytes, digest = row[:5]
    return partition, client, packet, topic_of(topic, topic_bytes), bytes(digest)
