"""Kafka records as columns: what the consumer hands to the decoder and the writer."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Message

from iot_platform.telemetry.decode import DecodedBatch, Decoder
from iot_platform.telemetry.envelope import EARLIEST, HEADER, LATEST, Envelopes, unpack

Ranges = dict[int, tuple[int, int]]
"""Kafka partition → [from offset, to offset)."""


@dataclass(slots=True)
class Records:
    """n records of some partitions, in offset order within each. `ranges` is what a commit of them moves; it may hold empty
    stretches that Kafka has no record for (transaction markers, compaction): `empty` counts their offsets, per partition."""

    topics: list[bytes | None]
    payloads: list[bytes | None]
    partition: npt.NDArray[np.int32]
    offset: npt.NDArray[np.int64]
    envelope: Envelopes
    ranges: Ranges
    empty: dict[int, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.payloads)


@dataclass(slots=True)
class DecodedRecords:
    """Records with what the decoder made of them; `decoder` owns the names that the decoded indices mean."""

    records: Records
    decoded: DecodedBatch
    decoder: Decoder


def to_records(messages: Sequence[Message], ranges: Ranges, empty: dict[int, int] | None = None) -> Records:
    """Columns of consumed messages (no errors among them)."""
    return Records(
        topics=list(map(Message.key, messages)),
        payloads=list(map(Message.value, messages)),
        partition=np.fromiter(map(Message.partition, messages), np.int32, len(messages)),
        offset=np.fromiter(map(Message.offset, messages), np.int64, len(messages)),
        envelope=unpack([_header(message.headers()) for message in messages], lambda row: _kafka_time(messages[row])),
        ranges=ranges,
        empty=empty or {},
    )


def _header(headers: Any) -> bytes | None:
    if not headers:
        return None
    found: bytes | None = headers[0][1] if headers[0][0] == HEADER else next((value for name, value in headers if name == HEADER), None)
    return found


def _kafka_time(message: Message) -> int:
    """Kafka's timestamp in µs; now, if there is none or it is no time that a clock shows (a topic with CreateTime takes any)."""
    kind, milliseconds = message.timestamp()
    known = kind != TIMESTAMP_NOT_AVAILABLE and EARLIEST <= milliseconds * 1000 < LATEST
    return int(milliseconds) * 1000 if known else time.time_ns() // 1000
