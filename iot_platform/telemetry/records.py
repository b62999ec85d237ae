"""Kafka records as columns: what the consumer hands to the decoder and the writer."""

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Message

from iot_platform.telemetry.decode import DecodedBatch, Decoder
from iot_platform.telemetry.envelope import EARLIEST, HEADER, LATEST, Connection, Envelopes, unpack

Ranges = dict[int, tuple[int, int]]
"""Kafka partition → [from offset, to offset)."""
Generations = Mapping[int, int]
"""Kafka partition → generation of its log (kafka_offset.log_generation); 0 for one that is not named."""
GENERATION_BITS: Final = 44
"""A place is an offset (below 2^44) with its generation above it: later logs have higher places, and the first log's are its offsets."""


@dataclass(frozen=True, slots=True)
class LastRecord:
    """What a partition's last drained record is known by: its offset, Kafka's leader epoch (None: not known) and its digest."""

    offset: int
    leader_epoch: int | None
    sha256: bytes


@dataclass(slots=True)
class Records:
    """n records of some partitions, in offset order within each. `ranges` is what a commit of them moves; it may hold empty
    stretches that Kafka has no record for (transaction markers, compaction): `empty` counts their offsets, per partition. `generation` says
    of which log of its partition each record is, `last` what the last record of each partition is known by."""

    topics: list[bytes | None]
    payloads: list[bytes | None]
    partition: npt.NDArray[np.int32]
    offset: npt.NDArray[np.int64]
    envelope: Envelopes
    ranges: Ranges
    generation: npt.NDArray[np.int32]
    empty: dict[int, int] = field(default_factory=dict)
    last: dict[int, LastRecord] = field(default_factory=dict)

    @property
    def places(self) -> npt.NDArray[np.int64]:
        """[n] where each record is in its partition: see place_of."""
        return self.offset | self.generation.astype(np.int64) << GENERATION_BITS

    def place_at(self, row: int) -> int:
        """Where a record is in its partition: see place_of."""
        return place_of(int(self.generation[row]), int(self.offset[row]))

    def connection_of(self, row: int) -> Connection:
        """The MQTT connection of a record whose header is readable."""
        return self.envelope.connections[int(self.envelope.connection[row])]

    def __len__(self) -> int:
        return len(self.payloads)


@dataclass(slots=True)
class DecodedRecords:
    """Records with what the decoder made of them; `decoder` owns the names that the decoded indices mean."""

    records: Records
    decoded: DecodedBatch
    decoder: Decoder

    @classmethod
    def of(cls, records: Records, decoder: Decoder) -> "DecodedRecords":
        """Decode them. Raises what the decoder's `births` raise."""
        received_at, places = records.envelope.received_at, records.places
        return cls(records, decoder.decode(records.topics, records.payloads, received_at, records.partition, places), decoder)


def topic_of(text: str, exact: bytes | None) -> bytes:
    """A stored record's topic: the text, unless the bytes had to be kept beside it (see duplicates.redelivery.topic_columns)."""
    return text.encode() if exact is None else bytes(exact)


def place_of(generation: int, offset: int) -> int:
    """An offset of a generation of a partition's log as one number, in the order of both."""
    return generation << GENERATION_BITS | offset


def split_place(place: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Generations and offsets of places (none may be negative)."""
    return (place >> GENERATION_BITS).astype(np.int32), place & (1 << GENERATION_BITS) - 1


def to_records(
    messages: Sequence[Message], ranges: Ranges, empty: dict[int, int] | None = None, generations: Generations | None = None
) -> Records:
    """Columns of consumed messages (no errors among them)."""
    partition = np.fromiter(map(Message.partition, messages), np.int32, len(messages))
    return Records(
        topics=list(map(Message.key, messages)),
        payloads=list(map(Message.value, messages)),
        partition=partition,
        offset=np.fromiter(map(Message.offset, messages), np.int64, len(messages)),
        envelope=unpack(_headers(messages), lambda row: _kafka_time(messages[row])),
        ranges=ranges,
        generation=_generation(partition, generations or {}),
        empty=empty or {},
        last={number: last_record(messages[rows[-1]]) for number in ranges if len(rows := np.flatnonzero(partition == number))},
    )


def digest(message: Message) -> bytes:
    """SHA-256 over Kafka's timestamp, key, our header and value: a record written again has another timestamp (LogAppendTime)."""
    found = hashlib.sha256(b"%d:%d" % message.timestamp())
    for part in (message.key(), _header(message.headers()), message.value()):
        data = part.encode() if isinstance(part, str) else part
        found.update(b"-" if data is None else b"%d:" % len(data) + data)
    return found.digest()


def last_record(message: Message) -> LastRecord:
    """What this record is known by later."""
    epoch = message.leader_epoch()
    return LastRecord(message.offset() or 0, None if epoch is None or epoch < 0 else epoch, digest(message))


def _generation(partition: npt.NDArray[np.int32], generations: Generations) -> npt.NDArray[np.int32]:
    generation = np.zeros(len(partition), np.int32)
    for number, later in generations.items():
        if later:
            generation[partition == number] = later
    return generation


def _headers(messages: Sequence[Message]) -> list[bytes | None]:
    found: list[Any] = list(map(Message.headers, messages))
    return [headers[0][1] if headers and headers[0][0] == HEADER else _header(headers) for headers in found]


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
