"""Finds the first copy of records whose header names the earlier receipts of the same MQTT message."""

import hashlib
from collections.abc import Container
from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np
import numpy.typing as npt
from psycopg2.extensions import connection as Connection  # noqa: N812

from iot_platform.telemetry.records import Records, topic_of

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_STORED: Final = """
SET LOCAL enable_seqscan = off;  -- the BRIN index, whatever the statistics of a young chunk say
SELECT m.sequence, s.topic, NULL, sha256(m.payload),
    record_place(coalesce(m.duplicate_of_generation, m.log_generation), coalesce(m.duplicate_of, m.kafka_offset))
FROM mqtt_connection c JOIN message m USING (connection_id) JOIN source s USING (source_id)
WHERE c.client_id = %(client)s AND c.connection_number = %(number)s
  AND m.received_at BETWEEN %(first)s AND %(last)s AND m.kafka_partition = %(partition)s AND m.sequence = ANY (%(sequences)s)
UNION ALL
SELECT q.sequence, q.topic, q.topic_bytes, sha256(q.payload),
    record_place(coalesce(q.duplicate_of_generation, q.log_generation), coalesce(q.duplicate_of, q.kafka_offset))
FROM mqtt_connection c JOIN quarantine q USING (connection_id)
WHERE c.client_id = %(client)s AND c.connection_number = %(number)s
  AND q.received_at BETWEEN %(first)s AND %(last)s AND q.kafka_partition = %(partition)s AND q.sequence = ANY (%(sequences)s)"""

Receipt = tuple[str, int, int, int]
"""MQTT client id, connection number, Kafka partition and sequence: where a message was received, and what it became."""


class EarlierReceipts:
    """A record repeats the one of an earlier receipt that its header names, if that is before it in the same Kafka partition and has the
    same topic and bytes. The daemon names each receipt once; those that never reached Kafka are not there."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def find(self, records: Records, found: npt.NDArray[np.int64], repeated: Container[int]) -> None:
        """Write the place of the first copy into `found` where a header names one that there is. Reads the database only for such
        headers; everything earlier of the partition must be committed."""
        named = records.envelope.receipts
        rows = [row for row in sorted(named) if named[row].earlier and found[row] < 0 and row not in repeated]
        if not rows:
            return
        wanted: dict[Receipt, int] = {}
        for row in rows:
            client, partition = records.connection_of(row)[0], int(records.partition[row])
            for number, sequence, received_at in named[row].earlier:
                wanted[client, number, partition, sequence] = received_at
        stored, in_batch = self._stored(wanted), _in_batch(records, wanted)
        for row in rows:
            client, partition = records.connection_of(row)[0], int(records.partition[row])
            topic, payload = records.topics[row] or b"", records.payloads[row] or b""
            for number, sequence, _ in named[row].earlier:
                receipt = client, number, partition, sequence
                place = stored.get((receipt, topic, hashlib.sha256(payload).digest()))
                other = in_batch.get(receipt, row)
                if place is None and other < row and (records.topics[other] or b"", records.payloads[other] or b"") == (topic, payload):
                    place = int(found[other]) if found[other] >= 0 else records.place_at(other)
                if place is not None:
                    found[row] = place
                    break

    def _stored(self, wanted: dict[Receipt, int]) -> dict[tuple[Receipt, bytes, bytes], int]:
        """First copies among what is committed, by receipt, topic and SHA-256 of the payload."""
        found: dict[tuple[Receipt, bytes, bytes], int] = {}
        with self._connection.cursor() as cursor:
            for client, number, partition in sorted({receipt[:3] for receipt in wanted}):
                received = {receipt[3]: at for receipt, at in wanted.items() if receipt[:3] == (client, number, partition)}
                parameters = {
                    "client": client,
                    "number": number,
                    "partition": partition,
                    "first": _EPOCH + timedelta(microseconds=min(received.values())),
                    "last": _EPOCH + timedelta(microseconds=max(received.values())),
                    "sequences": list(received),
                }
                cursor.execute(_STORED, parameters)
                for sequence, topic, topic_bytes, digest, place in cursor.fetchall():
                    name = topic_of(topic, topic_bytes)
                    key = ((client, number, partition, sequence), name, bytes(digest))
                    found[key] = min(place, found.get(key, place))
        self._connection.rollback()
        return found


def _in_batch(records: Records, wanted: dict[Receipt, int]) -> dict[Receipt, int]:
    """The first row of the batch for each receipt that has one."""
    envelope = records.envelope
    found: dict[Receipt, int] = {}
    for index, (client, number) in enumerate(envelope.connections):
        sequences = [receipt[3] for receipt in wanted if receipt[:2] == (client, number)]
        if not sequences:
            continue
        for row in np.flatnonzero((envelope.connection == index) & np.isin(envelope.sequence, sequences)).tolist():
            found.setdefault((client, number, int(records.partition[row]), int(envelope.sequence[row])), row)
    return found
