"""Births and sequence numbers of Sparkplug B in the database: read for the decoder, written in the transaction of a batch."""

import json
from typing import Any, Final

import psycopg2
from psycopg2 import Binary
from psycopg2.extensions import connection as Connection  # noqa: N812
from psycopg2.extensions import cursor as Cursor  # noqa: N812
from psycopg2.extras import execute_values

from iot_platform.database.connection import Role, connect
from iot_platform.database.interval import interval
from iot_platform.settings import Settings
from iot_platform.telemetry import retries
from iot_platform.telemetry.decode.sparkplug.births import NEVER, BatchBirths, Birth, Definition, History, Owner, Place
from iot_platform.telemetry.drain.catalog import name_key

_BIRTH: Final = """
    b.kafka_partition, b.place, (extract(epoch FROM b.received_at) * 1000000)::bigint, b.device, b.bd_seq, b.sha256, b.tenant_id,
    b.project_id, b.metrics"""
_BEFORE: Final = f"""
SELECT {_BIRTH} FROM sparkplug_birth b
WHERE b.identity = %(node)s AND b.kafka_partition = %(partition)s AND b.place <= %(place)s AND b.place >= coalesce((
    SELECT max(n.place) FROM sparkplug_birth n
    WHERE n.identity = %(node)s AND n.kafka_partition = %(partition)s AND n.place <= %(place)s AND n.device = ''), 0)
ORDER BY b.place"""  # noqa: S608 - constants
_AFTER: Final = """
SELECT min(b.place), (SELECT n.seq FROM sparkplug_node n
    WHERE n.identity = %(node)s AND n.kafka_partition = %(partition)s AND n.last_place <= %(place)s)
FROM sparkplug_birth b WHERE b.identity = %(node)s AND b.kafka_partition = %(partition)s AND b.place > %(place)s"""
_ELSEWHERE: Final = f"""
SELECT {_BIRTH} FROM sparkplug_birth b
WHERE b.identity = %(node)s AND b.received_at <= 'epoch'::timestamptz + %(received)s::interval AND b.received_at >= coalesce((
    SELECT max(n.received_at) FROM sparkplug_birth n
    WHERE n.identity = %(node)s AND n.received_at <= 'epoch'::timestamptz + %(received)s::interval AND n.device = ''), '-infinity')
ORDER BY b.received_at, b.kafka_partition, b.place"""  # noqa: S608 - constants
_TIME: Final = "'epoch'::timestamptz + %s::interval"
_ADD: Final = """
INSERT INTO sparkplug_birth (identity, kafka_partition, place, received_at, device, bd_seq, sha256, tenant_id, project_id, metrics)
VALUES %s ON CONFLICT DO NOTHING"""
_ADD_ROW: Final = f"(%s, %s, %s, {_TIME}, %s, %s, %s, %s, %s, %s)"
_REMOVE: Final = """
DELETE FROM sparkplug_birth b USING unnest(%s::bytea[], %s::int[]) v (identity, kafka_partition)
WHERE b.identity = v.identity AND b.kafka_partition = v.kafka_partition AND b.place < (
    SELECT max(n.place) FROM sparkplug_birth n WHERE n.identity = v.identity AND n.kafka_partition = v.kafka_partition AND n.device = ''
        AND n.received_at < now() - interval '30 days')"""
_COUNT: Final = """
INSERT INTO sparkplug_node AS n (identity, kafka_partition, node, tenant_id, project_id, last_place, last_received_at, seq, messages,
    births, deaths, seq_gaps, seq_missing, bd_seq, gap_at, born_at, died_at) VALUES %s
ON CONFLICT (identity, kafka_partition) DO UPDATE SET
    tenant_id = excluded.tenant_id, project_id = excluded.project_id, last_place = excluded.last_place,
    last_received_at = excluded.last_received_at, seq = coalesce(excluded.seq, n.seq), messages = n.messages + excluded.messages,
    births = n.births + excluded.births, deaths = n.deaths + excluded.deaths, seq_gaps = n.seq_gaps + excluded.seq_gaps,
    seq_missing = n.seq_missing + excluded.seq_missing, gap_at = coalesce(excluded.gap_at, n.gap_at),
    born_at = coalesce(excluded.born_at, n.born_at),
    bd_seq = CASE WHEN excluded.born_at IS NULL THEN n.bd_seq ELSE excluded.bd_seq END,
    died_at = CASE WHEN excluded.born_at IS NULL THEN coalesce(excluded.died_at, n.died_at) ELSE excluded.died_at END"""
_COUNT_ROW: Final = f"({', '.join(['%s'] * 6)}, {_TIME}, {', '.join(['%s'] * 7)}, {_TIME}, {_TIME}, {_TIME})"


class BirthHistory:
    """Looks births up for a decoder, over a connection of its own that is made when the first edge node is met.

    `anywhere`: where the record's own Kafka partition has no birth, those of others count, by receive time. Only where everything that was
    received before is known to be drained, as for a replay: a drain may be ahead of another partition.
    """

    def __init__(self, settings: Settings, run_id: str, role: Role = "writer", *, anywhere: bool = False) -> None:
        self._settings = settings
        self._role = role
        self._name = f"iot-births {run_id}"[:63]
        self._anywhere = anywhere
        self._connection: Connection | None = None

    def load(self, node: str, at: Place) -> History:
        """What the database knows of an edge node at a place.

        Raises:
            TransientError, DatabaseUnreachableError: retry.
        """
        if self._connection is None:
            self._connection = connect(self._settings, self._role, self._name)
        parameters = {
            "node": Binary(name_key((node,))),
            "partition": at.partition,
            "place": at.place,
            "received": interval(at.received_at),
        }
        try:
            with self._connection.cursor() as cursor:
                cursor.execute(_BEFORE, parameters)
                found = cursor.fetchall()
                cursor.execute(_AFTER, parameters)
                until, seq = cursor.fetchone() or (None, None)
                if not found and self._anywhere:
                    cursor.execute(_ELSEWHERE, parameters)
                    found, until = cursor.fetchall(), at.place + 1
            self._connection.rollback()
        except psycopg2.Error as error:
            retries.raise_explained(error, self._connection)
        return History([_birth(node, row) for row in found], NEVER if until is None else until, seq)

    def close(self) -> None:
        """Give up the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _birth(node: str, row: tuple[Any, ...]) -> Birth:
    partition, place, received_at, device, bd_seq, sha256, tenant, project, metrics = row
    definitions = tuple(Definition(*metric) for metric in metrics)
    return Birth(node, device, Owner(tenant, project), Place(partition, place, received_at), bytes(sha256), bd_seq, definitions)


def write(cursor: Cursor, births: BatchBirths) -> None:
    """Write what a batch adds, inside the caller's transaction."""
    if births.born:
        rows = [
            (
                *(Binary(name_key((birth.node,))), birth.at.partition, birth.at.place, interval(birth.at.received_at)),
                *(birth.device, birth.bd_seq, Binary(birth.sha256), *birth.owner, json.dumps(birth.definitions)),
            )
            for birth in births.born
        ]
        execute_values(cursor, _ADD, rows, template=_ADD_ROW)
        nodes = {(birth.node, birth.at.partition) for birth in births.born if not birth.device}
        cursor.execute(_REMOVE, ([Binary(name_key((node,))) for node, _ in nodes], [partition for _, partition in nodes]))
    if births.counts:
        counted = [
            (
                *(name_key((node,)), partition, node, *counts.owner, counts.last.place, interval(counts.last.received_at)),
                *(counts.seq, counts.messages, counts.births, counts.deaths, counts.seq_gaps, counts.seq_missing, counts.bd_seq),
                *(None if at is None else interval(at) for at in (counts.gap_at, counts.born_at, counts.died_at)),
            )
            for (node, partition), counts in births.counts.items()
        ]
        execute_values(cursor, _COUNT, [(Binary(row[0]), *row[1:]) for row in sorted(counted)], template=_COUNT_ROW)
