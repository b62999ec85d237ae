"""Finds records that the ingest daemon wrote to Kafka twice, as it may when its producer fails for good."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np
import numpy.typing as npt
from psycopg2.extensions import connection as Connection  # noqa: N812

from iot_platform.telemetry.records import Records, topic_of

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LAST: Final = """
SELECT connection_id, kafka_partition, last_sequence FROM mqtt_connection_partition
WHERE connection_id = ANY (%s) AND kafka_partition = ANY (%s)"""
_STORED: Final = """
SET LOCAL enable_seqscan = off;  -- the BRIN index, whatever the statistics of a young chunk say
SELECT m.sequence, (extract(epoch FROM m.received_at) * 1000000)::bigint, s.topic, NULL, sha256(m.payload),
    record_place(coalesce(m.duplicate_of_generation, m.log_generation), coalesce(m.duplicate_of, m.kafka_offset))
FROM message m JOIN source s USING (source_id)
WHERE m.received_at BETWEEN %(first)s AND %(last)s AND m.connection_id = %(connection)s AND m.kafka_partition = %(partition)s
  AND m.sequence = ANY (%(sequences)s)
UNION ALL
SELECT q.sequence, (extract(epoch FROM q.received_at) * 1000000)::bigint, q.topic, q.topic_bytes, sha256(q.payload),
    record_place(coalesce(q.duplicate_of_generation, q.log_generation), coalesce(q.duplicate_of, q.kafka_offset))
FROM quarantine q
WHERE q.received_at BETWEEN %(first)s AND %(last)s AND q.connection_id = %(connection)s AND q.kafka_partition = %(partition)s
  AND q.sequence = ANY (%(sequences)s)"""


@dataclass(frozen=True, slots=True)
class Stream:
    """What one MQTT connection brought into one Kafka partition: `rows` of a batch, in offset order."""

    connection_id: int
    partition: int
    rows: npt.NDArray[np.intp]

    @property
    def key(self) -> tuple[int, int]:
        """Connection id and partition: what the stream is, beyond one batch."""
        return self.connection_id, self.partition


def streams(records: Records, ids: npt.NDArray[np.int32]) -> Iterator[Stream]:
    """The streams of a batch; records without a readable header are in none. `ids` are what ConnectionIds made of its connections."""
    connection_id, partition = ids[records.envelope.connection], records.partition
    for number in sorted(set(ids[:-1].tolist())):
        of_connection = connection_id == number
        for kafka_partition in np.unique(partition[of_connection]).tolist():
            yield Stream(number, kafka_partition, np.flatnonzero(of_connection & (partition == kafka_partition)))


@dataclass(slots=True)
class Repeated:
    """Rows of a batch that repeat an earlier record, and where that is."""

    offset: dict[int, int] = field(default_factory=dict)  # committed: place of the first copy
    row: dict[int, int] = field(default_factory=dict)  # in the same batch: its row, always a smaller one


class Repeats:
    """A record repeats an earlier one of its stream if it has the same sequence, receive time, topic and bytes: its header is written
    again unchanged.

    Sequences of a stream rise with the offset, but for repeats and for records that were overtaken (refused by Kafka and tried again
    alone). So only records at or below the highest sequence before them are looked for.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._last: dict[tuple[int, int], int] = {}
        """Highest committed sequence of each (connection id, partition) seen; no other drain commits any between our commits, or the
        compare-and-set fails and this object goes with its writer."""

    def find(self, records: Records, batch: list[Stream]) -> Repeated:
        """The repeats of a batch. Everything earlier of its partitions must be committed."""
        self._learn(batch)
        result = Repeated()
        for stream in batch:
            sequence = records.envelope.sequence[stream.rows]
            before = np.maximum.accumulate(np.concatenate(([self._last[stream.key]], sequence[:-1])))
            if len(late := stream.rows[sequence <= before]):
                self._compare(records, stream, late, result)
        return result

    def committed(self, records: Records, batch: list[Stream]) -> None:
        """Call after the commit of a batch and before the next `find`."""
        for stream in batch:
            self._last[stream.key] = max(self._last[stream.key], int(records.envelope.sequence[stream.rows].max()))

    def _learn(self, batch: list[Stream]) -> None:
        new = {stream.key for stream in batch} - self._last.keys()
        if not new:
            return
        with self._connection.cursor() as cursor:
            cursor.execute(_LAST, tuple(list(values) for values in zip(*new, strict=True)))
            known = {(connection_id, partition): last for connection_id, partition, last in cursor.fetchall()}
        self._connection.rollback()
        self._last.update({key: known.get(key, -1) for key in new})

    def _compare(self, records: Records, stream: Stream, late: npt.NDArray[np.intp], result: Repeated) -> None:
        sequence = records.envelope.sequence
        stored = self._stored(records, stream, late[sequence[late] <= self._last[stream.key]])
        seen: dict[tuple[int, int, bytes, bytes], int] = {}
        for row in stream.rows[np.isin(sequence[stream.rows], sequence[late])].tolist():
            key = (*_key(records, row), records.payloads[row] or b"")
            if (earlier := seen.setdefault(key, row)) != row:
                result.row[row] = earlier
            elif stored and (offset := stored.get((*key[:3], hashlib.sha256(key[3]).digest()))) is not None:
                result.offset[row] = offset

    def _stored(self, records: Records, stream: Stream, rows: npt.NDArray[np.intp]) -> dict[tuple[int, int, bytes, bytes], int]:
        """First copies among what is committed, by sequence, receive time, topic and SHA-256 of the payload."""
        if not len(rows):
            return {}
        received_at = records.envelope.received_at[rows]
        parameters = {
            "first": _EPOCH + timedelta(microseconds=int(received_at.min())),
            "last": _EPOCH + timedelta(microseconds=int(received_at.max())),
            "connection": stream.connection_id,
            "partition": stream.partition,
            "sequences": records.envelope.sequence[rows].tolist(),
        }
        found: dict[tuple[int, int, bytes, bytes], int] = {}
        with self._connection.cursor() as cursor:
            cursor.execute(_STORED, parameters)
            for sequence, received, topic, topic_bytes, digest, offset in cursor.fetchall():
                name = topic_of(topic, topic_bytes)
                key = (sequence, received, name, bytes(digest))
                found[key] = min(offset, found.get(key, offset))
        self._connection.rollback()
        return found


def _key(records: Records, row: int) -> tuple[int, int, bytes]:
    envelope = records.envelope
    return int(envelope.sequence[row]), int(envelope.received_at[row]), records.topics[row] or b""
