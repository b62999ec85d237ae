"""Finds committed offsets whose record is in neither table, and fetches these records from Kafka while it holds them."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt
from psycopg2.extensions import connection as Connection  # noqa: N812

from iot_platform.database.interval import interval
from iot_platform.kafka.errors import TopicMissingError
from iot_platform.kafka.watermarks import WORK_SECONDS, TopicOffsets
from iot_platform.settings import Settings
from iot_platform.telemetry.drain import offsets
from iot_platform.telemetry.drain.log_cut import LogCheck
from iot_platform.telemetry.drain.source import KafkaSource, Start
from iot_platform.telemetry.envelope import Envelopes
from iot_platform.telemetry.errors import TransientError
from iot_platform.telemetry.records import Records
from iot_platform.telemetry.replay.rows import ReplayBatch
from iot_platform.telemetry.replay.selection import Slice

SILENCE_SECONDS: Final = 30.0
NEAR: Final = 1_000
"""Wanted offsets less than this apart are read in one go."""

_PRESENT: Final = """
SELECT kafka_offset FROM message
WHERE received_at BETWEEN 'epoch'::timestamptz + %(start)s::interval AND 'epoch'::timestamptz + %(end)s::interval
  AND kafka_partition = %(partition)s AND log_generation = %(generation)s AND kafka_offset >= %(first)s AND kafka_offset < %(last)s
UNION ALL
SELECT kafka_offset FROM quarantine
WHERE received_at BETWEEN 'epoch'::timestamptz + %(start)s::interval AND 'epoch'::timestamptz + %(end)s::interval
  AND kafka_partition = %(partition)s AND log_generation = %(generation)s AND kafka_offset >= %(first)s AND kafka_offset < %(last)s
UNION ALL
SELECT kafka_offset FROM removed_record
WHERE received_at BETWEEN 'epoch'::timestamptz + %(start)s::interval AND 'epoch'::timestamptz + %(end)s::interval
  AND kafka_partition = %(partition)s AND log_generation = %(generation)s AND kafka_offset >= %(first)s AND kafka_offset < %(last)s"""

Offsets = npt.NDArray[np.int64]


def missing(connection: Connection, part: Slice) -> Offsets:
    """Offsets of a slice that neither table has, and that a narrower policy or a tenant's deletion did not remove; those that Kafka never
    had a record for are among them. None if they are no more than the ledger says Kafka has none for."""
    parameters = {
        "start": interval(part.start),
        "end": interval(part.end),
        "partition": part.partition,
        "generation": part.generation,
        "first": part.first,
        "last": part.last,
    }
    absent = np.ones(part.last - part.first, np.bool_)
    with connection.cursor() as cursor:
        cursor.execute(_PRESENT, parameters)
        while rows := cursor.fetchmany(10_000):
            absent[np.array(rows, np.int64)[:, 0] - part.first] = False
    connection.rollback()
    found = np.flatnonzero(absent) + part.first
    return found[:0] if len(found) == part.empty else found


class KafkaLog:
    """The log of the drained topic, for reading again what lies behind next_offset."""

    def __init__(self, settings: Settings, rows: dict[int, offsets.OffsetRow]) -> None:
        self._settings = settings
        self._source = KafkaSource(settings)
        self._rows = rows

    def reason_against(self, partition: int, connection: Connection) -> str:
        """Why nothing of the partition can be restored; "" if it can. Rolls back.

        Raises:
            KafkaUnavailableError, TransientError: Kafka does not answer.
        """
        row = self._rows[partition]
        with TopicOffsets(self._settings, WORK_SECONDS) as topic:
            try:
                identity = topic.identity()
            except TopicMissingError as error:
                return str(error)
            if (identity.cluster_id, identity.topic_id) != (row.cluster_id, row.topic_id):
                return f"topic '{identity.topic}' is not the one that was drained (topic id {identity.topic_id}, drained: {row.topic_id})"
            if partition not in identity.partitions:
                return f"topic '{identity.topic}' has no partition {partition} any more"
            watermarks = topic.watermarks((partition,))
        check = LogCheck(self._settings, self._source.consumer, connection, identity)
        cuts = check.verify({partition: row}, watermarks, note=False).cuts if row.next_offset >= watermarks[partition].low else []
        return f"Kafka's log was cut at {cuts[0].at}, which no drain has seen yet: repeat this after one" if cuts else ""

    def low(self, partition: int) -> int:
        """The first offset that Kafka still holds.

        Raises:
            KafkaUnavailableError, TopicMissingError.
        """
        with TopicOffsets(self._settings, WORK_SECONDS) as topic:
            return topic.look((partition,))[1][partition].low

    def fetch(self, partition: int, generation: int, wanted: Offsets, stopped: Callable[[], bool]) -> Iterator[tuple[Records, Offsets]]:
        """The records of these offsets (ascending, none below `low`), where Kafka has one; with each batch the wanted offsets up to there.

        Raises:
            TransientError: Kafka does not answer.
        """
        for run in np.split(wanted, np.flatnonzero(np.diff(wanted) > NEAR) + 1) if len(wanted) else ():
            yield from self._run(partition, generation, run, stopped)

    def _run(self, partition: int, generation: int, wanted: Offsets, stopped: Callable[[], bool]) -> Iterator[tuple[Records, Offsets]]:
        source, begin, end = self._source, int(wanted[0]), int(wanted[-1]) + 1
        source.assign({partition: Start(begin)}, {partition: generation})
        deadline = time.monotonic() + SILENCE_SECONDS
        while begin < end and not stopped():
            records = source.read(stopped)
            if records is None:
                if time.monotonic() > deadline:
                    raise TransientError(f"Kafka gives nothing of partition {partition} from offset {begin} on")
                continue
            deadline = time.monotonic() + SILENCE_SECONDS
            passed = wanted[(wanted >= begin) & (wanted < source.position[partition])]
            begin = source.position[partition]
            if len(passed):
                yield take(records, np.flatnonzero(np.isin(records.offset, passed))), passed

    def close(self) -> None:
        """Give up the consumer."""
        self._source.close()


def take(records: Records, rows: npt.NDArray[np.intp]) -> Records:
    """Some of the records."""
    envelope = records.envelope
    names = ("readable", "received_at", "flags", "packet_id", "sequence", "connection")
    receipts = {new: envelope.receipts[row] for new, row in enumerate(rows.tolist()) if row in envelope.receipts}
    chosen: Envelopes = replace(envelope, receipts=receipts, **{name: getattr(envelope, name)[rows] for name in names})
    return Records(
        topics=[records.topics[row] for row in rows.tolist()],
        payloads=[records.payloads[row] for row in rows.tolist()],
        partition=records.partition[rows],
        offset=records.offset[rows],
        envelope=chosen,
        ranges={},
        generation=records.generation[rows],
    )


def batch_from_kafka(records: Records, *, counted: bool) -> ReplayBatch:
    """Records from Kafka, for the writer: it finds connection and first copy."""
    count = len(records)
    return ReplayBatch(
        records=records,
        in_quarantine=np.zeros(count, np.bool_),
        restored=np.ones(count, np.bool_),
        connection_id=np.zeros(count, np.int32),
        duplicate_of=np.full(count, -1, np.int64),
        reason=[""] * count,
        detail=[""] * count,
        project=[("", "")] * count,
        shift=np.full(count, -1, np.int32),
        counted=counted,
    )
