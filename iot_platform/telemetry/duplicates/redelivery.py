"""Finds the first copy of messages that MQTT delivered again after a broken connection, or that Kafka holds twice."""

from collections.abc import Container
from typing import Final

import numpy as np
import numpy.typing as npt
from psycopg2.extensions import connection as Connection  # noqa: N812

from iot_platform.telemetry.duplicates.message_key import Key, key_of, stored_key
from iot_platform.telemetry.duplicates.overtaken import Overtaken
from iot_platform.telemetry.duplicates.receipts import EarlierReceipts
from iot_platform.telemetry.duplicates.repeats import Repeats, Stream
from iot_platform.telemetry.envelope import DUP, escaped
from iot_platform.telemetry.envelope import Connection as MqttConnection
from iot_platform.telemetry.records import Records

EARLIER_CONNECTIONS: Final = 16
"""How many earlier connections of a client are searched: a broker gives up its session, or we are connected, long before."""

_CONNECTIONS: Final = """
SELECT c.connection_number, c.connection_id, max(p.last_sequence), min(p.first_received_at), max(p.last_received_at)
FROM mqtt_connection c JOIN mqtt_connection_partition p USING (connection_id)
WHERE c.client_id = %s AND c.connection_number < %s AND c.connection_number > %s
GROUP BY c.connection_id ORDER BY c.connection_number DESC LIMIT %s"""
_STORED: Final = """
SELECT m.kafka_partition, m.packet_id, s.topic, NULL, sha256(m.payload),
    record_place(coalesce(m.duplicate_of_generation, m.log_generation), coalesce(m.duplicate_of, m.kafka_offset))
FROM message m JOIN source s USING (source_id)
WHERE m.received_at BETWEEN %(first)s AND %(last)s AND m.connection_id = %(connection)s AND m.sequence > %(after)s
  AND m.kafka_partition = ANY (%(partitions)s) AND m.packet_id = ANY (%(packets)s)
UNION ALL
SELECT q.kafka_partition, q.packet_id, q.topic, q.topic_bytes, sha256(q.payload),
    record_place(coalesce(q.duplicate_of_generation, q.log_generation), coalesce(q.duplicate_of, q.kafka_offset))
FROM quarantine q
WHERE q.received_at BETWEEN %(first)s AND %(last)s AND q.connection_id = %(connection)s AND q.sequence > %(after)s
  AND q.kafka_partition = ANY (%(partitions)s) AND q.packet_id = ANY (%(packets)s)"""


class Redelivery:
    """What the ingest daemon recognised is in the header: see EarlierReceipts. Of connections that it knows nothing of (another daemon
    with its client id had them, or its state directory is lost) a DUP record repeats one that has the same client id, packet id, topic and
    bytes, lies in the same Kafka partition, and is among the last `window` messages of an earlier connection, which is all that can have
    been unacknowledged when it broke. A wrong guess costs a flag: both records are kept. Records that Kafka holds twice: see Repeats;
    first copies that come after their redelivery: see Overtaken."""

    def __init__(self, connection: Connection, window: int) -> None:
        self._connection = connection
        self._window = window
        self._repeats = Repeats(connection)
        self._overtaken = Overtaken(connection, window)
        self._receipts = EarlierReceipts(connection)

    def find(self, records: Records, batch: list[Stream]) -> npt.NDArray[np.int64]:
        """For each record the place (see records.place_of; same partition) of its first copy, or -1. Reads the database only if there are
        redelivered or DUP records, sequences or connection numbers that don't rise, and once for each new stream; everything earlier of the
        partition must be committed."""
        found = np.full(len(records), -1, np.int64)
        repeated = self._repeats.find(records, batch)
        for row, offset in repeated.offset.items():
            found[row] = offset
        self._receipts.find(records, found, repeated.row)
        self._find_redelivered(records, found, repeated.row)
        self._overtaken.find(records, batch, found, repeated.row)
        for row, first in repeated.row.items():
            found[row] = found[first] if found[first] >= 0 else records.place_at(first)
        return found

    def committed(self, records: Records, batch: list[Stream]) -> None:
        """Call after the commit of a batch and before the next `find`."""
        self._repeats.committed(records, batch)
        self._overtaken.committed(records, batch)

    def _find_redelivered(self, records: Records, found: npt.NDArray[np.int64], repeated: Container[int]) -> None:
        envelope = records.envelope
        rows = [
            row
            for row in np.flatnonzero(envelope.readable & ((envelope.flags & DUP) != 0)).tolist()
            if found[row] < 0 and row not in repeated
        ]
        if not rows:
            return
        last = self._last_sequences(records)
        candidates = self._in_batch(records, {int(envelope.packet_id[row]) for row in rows})
        stored: dict[MqttConnection, dict[Key, int]] = {}
        for row in rows:
            client, number = envelope.connections[envelope.connection[row]]
            if (client, number) not in stored:
                same = [other for other in rows if envelope.connections[envelope.connection[other]] == (client, number)]
                stored[client, number] = self._in_database(records, same, client, (_known(records, row), number), last)
            key = key_of(records, row)
            if (first := stored[client, number].get(key)) is not None:
                found[row] = first
                continue
            for other in candidates.get(key, ()):
                earlier = envelope.connections[envelope.connection[other]]
                if other < row and _known(records, row) < earlier[1] < number and envelope.sequence[other] > last[earlier] - self._window:
                    found[row] = found[other] if found[other] >= 0 else records.place_at(other)
                    break

    def _last_sequences(self, records: Records) -> dict[MqttConnection, int]:
        envelope = records.envelope
        last = np.zeros(len(envelope.connections) + 1, np.int64)
        np.maximum.at(last, envelope.connection, envelope.sequence)
        return {connection: int(last[index]) for index, connection in enumerate(envelope.connections)}

    def _in_batch(self, records: Records, packets: set[int]) -> dict[Key, list[int]]:
        envelope = records.envelope
        if len(envelope.connections) < 2:
            return {}
        candidates: dict[Key, list[int]] = {}
        for row in np.flatnonzero(envelope.readable & np.isin(envelope.packet_id, list(packets))).tolist():
            candidates.setdefault(key_of(records, row), []).append(row)
        return candidates

    def _in_database(
        self, records: Records, rows: list[int], client: str, between: tuple[int, int], last: dict[MqttConnection, int]
    ) -> dict[Key, int]:
        """First copies among what is committed, of the client's connections between two numbers; also lifts `last` to what the database
        knows."""
        partitions = sorted(set(records.partition[rows].tolist()))
        packets = sorted(set(records.envelope.packet_id[rows].tolist()))
        found: dict[Key, int] = {}
        with self._connection.cursor() as cursor:
            cursor.execute(_CONNECTIONS, (client, *reversed(between), EARLIER_CONNECTIONS))
            for earlier, connection_id, last_sequence, first_at, last_at in cursor.fetchall():
                last[client, earlier] = max(last.get((client, earlier), 0), last_sequence)
                parameters = {
                    "first": first_at,
                    "last": last_at,
                    "connection": connection_id,
                    "after": last[client, earlier] - self._window,
                    "partitions": partitions,
                    "packets": packets,
                }
                cursor.execute(_STORED, parameters)
                for row in cursor.fetchall():
                    key, offset = stored_key(client, row), row[-1]
                    found[key] = min(offset, found.get(key, offset))
        self._connection.rollback()
        return found


def _known(records: Records, row: int) -> int:
    """The connection up to which the daemon has said all; one and the same for all records of a connection."""
    receipts = records.envelope.receipts.get(row)
    return receipts.known if receipts is not None else -1


def topic_columns(topic: bytes | None) -> tuple[str, bytes | None]:
    """A topic for the columns `topic` and `topic_bytes` of quarantine: the bytes only where the text had to be escaped."""
    text = escaped(topic or b"")
    return text, None if text.encode() == (topic or b"") else topic
