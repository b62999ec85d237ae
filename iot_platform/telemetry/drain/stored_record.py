"""Whether a Kafka record is the one that the database has for its partition and offset."""

import hashlib
from typing import Any, Final

from confluent_kafka import Message
from psycopg2.extensions import connection as Connection  # noqa: N812

from iot_platform.database.interval import interval
from iot_platform.kafka.watermarks import TopicIdentity
from iot_platform.telemetry.drain.offsets import OffsetRow
from iot_platform.telemetry.records import to_records

_BATCH: Final = """
SELECT to_offset, (extract(epoch FROM first_received_at) * 1000000)::bigint, (extract(epoch FROM last_received_at) * 1000000)::bigint
FROM ledger
WHERE kafka_topic = %s AND topic_id = %s AND kafka_partition = %s AND log_generation = %s AND kind = 'drain' AND from_offset <= %s
ORDER BY from_offset DESC, batch_id DESC LIMIT 1"""
_ROW: Final = """
SELECT (extract(epoch FROM r.received_at) * 1000000)::bigint, r.sequence, c.client_id, c.connection_number, r.payload FROM (
    SELECT received_at, sequence, connection_id, sha256(payload) AS payload FROM message
    WHERE received_at BETWEEN 'epoch'::timestamptz + %(first)s::interval AND 'epoch'::timestamptz + %(last)s::interval
      AND kafka_partition = %(partition)s AND log_generation = %(generation)s AND kafka_offset = %(offset)s
    UNION ALL
    SELECT received_at, sequence, connection_id, sha256(payload) FROM quarantine
    WHERE received_at BETWEEN 'epoch'::timestamptz + %(first)s::interval AND 'epoch'::timestamptz + %(last)s::interval
      AND kafka_partition = %(partition)s AND log_generation = %(generation)s AND kafka_offset = %(offset)s
    UNION ALL
    SELECT received_at, sequence, connection_id, NULL FROM removed_record
    WHERE received_at BETWEEN 'epoch'::timestamptz + %(first)s::interval AND 'epoch'::timestamptz + %(last)s::interval
      AND kafka_partition = %(partition)s AND log_generation = %(generation)s AND kafka_offset = %(offset)s
) r LEFT JOIN mqtt_connection c USING (connection_id)"""


_LETTER: Final = """
SELECT (extract(epoch FROM received_at) * 1000000)::bigint, sequence, client_id, connection_number, NULL FROM dead_letter
WHERE topic_id = %s AND kafka_partition = %s AND kafka_offset = %s AND log_generation <= %s ORDER BY log_generation DESC LIMIT 1"""


class StoredRecords:
    """What was drained of one partition, in any generation of its log: of an offset the latest one that covers it counts."""

    def __init__(self, connection: Connection, identity: TopicIdentity, row: OffsetRow) -> None:
        self._connection = connection
        self._topic = identity.topic
        self._row = row

    def has(self, message: Message) -> bool | None:
        """True: this very record is stored for its offset, or (its row is beyond retention) was received while the batch of that offset
        was. False: another one is. None: nothing is known of that offset."""
        records = to_records([message], {})
        received, readable = int(records.envelope.received_at[0]), bool(records.envelope.readable[0])
        offset = int(records.offset[0])
        try:
            rows = self._letters(offset) if (batch := self._batch(offset)) is None else self._stored(offset, *batch)
        finally:
            self._connection.rollback()
        if rows:
            return any(row == _row_of(message, received, row) for row in rows)
        if batch is None or not readable:  # without our header the time may be of any clock
            return None
        _, first, last = batch
        return first <= received <= last

    def _batch(self, offset: int) -> tuple[int, int, int] | None:
        """Generation, and first and last receive time (µs), of the drained batch that covers an offset."""
        with self._connection.cursor() as cursor:
            for generation in range(self._row.log_generation, -1, -1):
                cursor.execute(_BATCH, (self._topic, self._row.topic_id, self._row.partition, generation, offset))
                found = cursor.fetchone()
                if found is not None and found[0] > offset and found[1] is not None:
                    return generation, found[1], found[2]
        return None

    def _letters(self, offset: int) -> list[tuple[Any, ...]]:
        """What was imported of the dead-letter topic; other topics have none."""
        with self._connection.cursor() as cursor:
            cursor.execute(_LETTER, (self._row.topic_id, self._row.partition, offset, self._row.log_generation))
            return cursor.fetchall()

    def _stored(self, offset: int, generation: int, first: int, last: int) -> list[tuple[Any, ...]]:
        """Rows of that place: several, where topics of other names have had the same partition."""
        with self._connection.cursor() as cursor:
            cursor.execute(
                _ROW,
                {
                    "first": interval(first),
                    "last": interval(last),
                    "partition": self._row.partition,
                    "generation": generation,
                    "offset": offset,
                },
            )
            return [(*row[:-1], None if row[-1] is None else bytes(row[-1])) for row in cursor.fetchall()]


def _row_of(message: Message, received: int, row: tuple[Any, ...]) -> tuple[Any, ...]:
    """The columns of _ROW as this message has them; the payload only where the row still has one, the time only
    where it is in our header."""
    envelope = to_records([message], {}).envelope
    value = message.value()
    data = value.encode() if isinstance(value, str) else value or b""
    payload = None if row[-1] is None else hashlib.sha256(data).digest()
    if not envelope.readable[0]:
        return row[0], None, None, None, payload
    client, number = envelope.connections[0]
    return received, int(envelope.sequence[0]), client, number, payload
