"""Finds records whose redelivery is in Kafka before them.

The broker gave the session to a second daemon, whose copy reached Kafka first.
"""

from collections.abc import Container
from datetime import timedelta
from typing import Final

import numpy as np
import numpy.typing as npt
from psycopg2.extensions import connection as Connection  # noqa: N812

from iot_platform.telemetry.duplicates.message_key import Key, key_of, stored_key
from iot_platform.telemetry.duplicates.repeats import Stream
from iot_platform.telemetry.envelope import DUP
from iot_platform.telemetry.records import Records

LATER_CONNECTIONS: Final = 16
"""How many later connections of a client are searched."""
REDELIVERY_SECONDS: Final = 120
"""A broker sends again what was not acknowledged as soon as a connection is made."""

_NEWEST: Final = """
SELECT c.client_id, p.kafka_partition, max(c.connection_number)
FROM mqtt_connection c JOIN mqtt_connection_partition p USING (connection_id)
WHERE c.client_id = ANY (%s) AND p.kafka_partition = ANY (%s)
GROUP BY c.client_id, p.kafka_partition"""
_CONNECTIONS: Final = """
SELECT c.connection_id, min(p.first_received_at)
FROM mqtt_connection c JOIN mqtt_connection_partition p USING (connection_id)
WHERE c.client_id = %s AND c.connection_number > %s
GROUP BY c.connection_id ORDER BY c.connection_number LIMIT %s"""
_STORED: Final = """
SELECT m.kafka_partition, m.packet_id, s.topic, NULL, sha256(m.payload), record_place(m.log_generation, m.kafka_offset)
FROM message m JOIN source s USING (source_id)
WHERE m.received_at BETWEEN %(first)s AND %(last)s AND m.connection_id = %(connection)s AND m.sequence <= %(window)s
  AND m.kafka_partition = ANY (%(partitions)s) AND m.packet_id = ANY (%(packets)s)
  AND (m.flags & %(dup)s) <> 0 AND m.duplicate_of IS NULL
UNION ALL
SELECT q.kafka_partition, q.packet_id, q.topic, q.topic_bytes, sha256(q.payload), record_place(q.log_generation, q.kafka_offset)
FROM quarantine q
WHERE q.received_at BETWEEN %(first)s AND %(last)s AND q.connection_id = %(connection)s AND q.sequence <= %(window)s
  AND q.kafka_partition = ANY (%(partitions)s) AND q.packet_id = ANY (%(packets)s)
  AND (q.flags & %(dup)s) <> 0 AND q.duplicate_of IS NULL"""


class Overtaken:
    """A record was overtaken if a DUP record of a later connection of the same client, among the first `window` messages of that
    connection and without a first copy of its own, has the same packet id, topic and bytes and lies before it in the same Kafka
    partition. One daemon alone writes in order; two under one client id (a twin, or a predecessor that was cut off from the broker but not
    from Kafka) don't."""

    def __init__(self, connection: Connection, window: int) -> None:
        self._connection = connection
        self._window = window
        self._newest: dict[tuple[str, int], int] = {}
        """Highest connection number of each (client id, Kafka partition) seen; see Repeats: no other drain commits between our commits."""

    def find(self, records: Records, batch: list[Stream], found: npt.NDArray[np.int64], repeated: Container[int]) -> None:
        """Write the place of the redelivery that came first into `found` where a record was overtaken. Reads the database only for new
        streams, and if connection numbers don't rise."""
        self._learn(records, batch)
        late = [row for row in self._late(records, batch) if found[row] < 0 and row not in repeated]
        if not late:
            return
        copies = self._in_batch(records, found, {int(records.envelope.packet_id[row]) for row in late})
        for client, number in {records.connection_of(row) for row in late}:
            rows = [row for row in late if records.connection_of(row) == (client, number)]
            stored = self._in_database(records, rows, client, number)
            for row in rows:
                key = key_of(records, row)
                before = [offset for later, offset in copies.get(key, ()) if later > number and offset < records.place_at(row)]
                if (offset := stored.get(key, min(before, default=-1))) >= 0:
                    found[row] = offset

    def committed(self, records: Records, batch: list[Stream]) -> None:
        """Call after the commit of a batch and before the next `find`."""
        for key, several in _by_client(records, batch).items():
            self._newest[key] = max(self._newest[key], *(number for number, _ in several))

    def _learn(self, records: Records, batch: list[Stream]) -> None:
        new = _by_client(records, batch).keys() - self._newest.keys()
        if not new:
            return
        clients, partitions = zip(*new, strict=True)
        with self._connection.cursor() as cursor:
            cursor.execute(_NEWEST, (sorted(set(clients)), sorted(set(partitions))))
            known = {(client, partition): number for client, partition, number in cursor.fetchall()}
        self._connection.rollback()
        self._newest.update({key: known.get(key, -1) for key in new})

    def _late(self, records: Records, batch: list[Stream]) -> list[int]:
        """Rows that come after one of a later connection of their client, in the same partition; ascending."""
        late: list[int] = []
        for key, several in _by_client(records, batch).items():
            if len(several) == 1 and several[0][0] >= self._newest[key]:
                continue  # nearly always
            rows = np.concatenate([stream.rows for _, stream in several])
            number = np.concatenate([np.full(len(stream.rows), number, np.int64) for number, stream in several])
            order = np.argsort(rows)
            rows, number = rows[order], number[order]
            late += rows[number < np.maximum.accumulate(np.append(self._newest[key], number))[:-1]].tolist()
        return sorted(late)

    def _in_batch(self, records: Records, found: npt.NDArray[np.int64], packets: set[int]) -> dict[Key, list[tuple[int, int]]]:
        """Connection number and place of the DUP records that have no first copy."""
        envelope = records.envelope
        chosen = envelope.readable & (envelope.flags & DUP != 0) & (found < 0) & (envelope.sequence <= self._window)
        copies: dict[Key, list[tuple[int, int]]] = {}
        for row in np.flatnonzero(chosen & np.isin(envelope.packet_id, list(packets))).tolist():
            number = records.connection_of(row)[1]
            copies.setdefault(key_of(records, row), []).append((number, int(records.place_at(row))))
        return copies

    def _in_database(self, records: Records, rows: list[int], client: str, number: int) -> dict[Key, int]:
        envelope = records.envelope
        found: dict[Key, int] = {}
        with self._connection.cursor() as cursor:
            cursor.execute(_CONNECTIONS, (client, number, LATER_CONNECTIONS))
            for connection_id, first_at in cursor.fetchall():
                parameters = {
                    "first": first_at,
                    "last": first_at + timedelta(seconds=REDELIVERY_SECONDS),
                    "connection": connection_id,
                    "window": self._window,
                    "partitions": sorted(set(records.partition[rows].tolist())),
                    "packets": sorted(set(envelope.packet_id[rows].tolist())),
                    "dup": DUP,
                }
                cursor.execute(_STORED, parameters)
                for row in cursor.fetchall():
                    key, offset = stored_key(client, row), row[-1]
                    found[key] = min(offset, found.get(key, offset))
        self._connection.rollback()
        return found


def _by_client(records: Records, batch: list[Stream]) -> dict[tuple[str, int], list[tuple[int, Stream]]]:
    """The streams of each client and partition, with their connection numbers."""
    result: dict[tuple[str, int], list[tuple[int, Stream]]] = {}
    for stream in batch:
        client, number = records.connection_of(int(stream.rows[0]))
        result.setdefault((client, stream.partition), []).append((number, stream))
    return result
