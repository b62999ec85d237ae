"""Reads stored records back from message and quarantine, as the columns that the decoder and the writer take."""

from collections.abc import Iterator
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from psycopg2.extensions import connection as Connection  # noqa: N812

from iot_platform.database.deadline import BoundedConnection
from iot_platform.database.interval import interval
from iot_platform.settings import Settings
from iot_platform.telemetry.drain.catalog import Project
from iot_platform.telemetry.envelope import Envelopes
from iot_platform.telemetry.records import Records, split_place, topic_of
from iot_platform.telemetry.replay.selection import Selection, Slice

SORT_SECONDS: Final = 600
"""The first row of a slice comes when all are sorted: long, where a flood fell into one second."""
FETCH: Final = 512
"""Rows per fetch: bounds how far a batch can overshoot its bytes."""

Key = tuple[int, int, int]
"""Receive time (µs), Kafka partition, place (see records.place_of): the order of reading."""

_ROWS: Final = """
SELECT (extract(epoch FROM received_at) * 1000000)::bigint, kafka_partition, record_place(log_generation, kafka_offset), sequence,
    record_place(coalesce(duplicate_of_generation, log_generation), duplicate_of), connection_id, packet_id, flags, topic, topic_bytes,
    payload, reason, detail, time_shift_us, tenant_id, project_id
FROM (
    SELECT m.received_at, m.kafka_partition, m.log_generation, m.kafka_offset, m.sequence, m.duplicate_of, m.duplicate_of_generation,
        m.connection_id, m.packet_id, m.flags, s.topic, NULL::bytea AS topic_bytes, m.payload, NULL AS reason, NULL AS detail,
        m.time_shift_us, s.tenant_id, s.project_id
    FROM message m JOIN source s USING (source_id)
    WHERE NOT %(quarantined)s
        AND m.received_at >= 'epoch'::timestamptz + %(start)s::interval AND m.received_at < 'epoch'::timestamptz + %(end)s::interval
        AND (%(partition)s::int IS NULL
            OR m.kafka_partition = %(partition)s AND m.log_generation = %(generation)s
                AND m.kafka_offset >= %(first)s AND m.kafka_offset < %(last)s)
        AND (m.received_at, m.kafka_partition, record_place(m.log_generation, m.kafka_offset))
            > ('epoch'::timestamptz + %(after_time)s::interval, %(after_partition)s::int, %(after_place)s::bigint)
        AND (%(tenant)s::text IS NULL OR s.tenant_id = %(tenant)s) AND (%(project)s::text IS NULL OR s.project_id = %(project)s)
    UNION ALL
    SELECT q.received_at, q.kafka_partition, q.log_generation, q.kafka_offset, q.sequence, q.duplicate_of, q.duplicate_of_generation,
        q.connection_id, q.packet_id, q.flags, q.topic, q.topic_bytes, q.payload, q.reason, q.detail,
        NULL, q.tenant_id, q.project_id
    FROM quarantine q
    WHERE q.received_at >= 'epoch'::timestamptz + %(start)s::interval AND q.received_at < 'epoch'::timestamptz + %(end)s::interval
        AND (%(partition)s::int IS NULL
            OR q.kafka_partition = %(partition)s AND q.log_generation = %(generation)s
                AND q.kafka_offset >= %(first)s AND q.kafka_offset < %(last)s)
        AND (q.received_at, q.kafka_partition, record_place(q.log_generation, q.kafka_offset))
            > ('epoch'::timestamptz + %(after_time)s::interval, %(after_partition)s::int, %(after_place)s::bigint)
        AND (%(reasons)s::text[] IS NULL OR q.reason = ANY (%(reasons)s))
        AND (%(tenant)s::text IS NULL OR q.tenant_id IN (%(tenant)s, ''))
        AND (%(project)s::text IS NULL OR q.project_id IN (%(project)s, ''))
) stored
ORDER BY received_at, kafka_partition, record_place(log_generation, kafka_offset)"""


@dataclass(slots=True)
class ReplayBatch:
    """n records, each in one of three places: in message, in quarantine (with its row's reason and detail), or read from Kafka because
    neither table has it (`restored`)."""

    records: Records
    in_quarantine: npt.NDArray[np.bool_]
    restored: npt.NDArray[np.bool_]
    connection_id: npt.NDArray[np.int32]  # 0: unknown
    duplicate_of: npt.NDArray[np.int64]  # place of the first copy; -1: none
    reason: list[str]
    detail: list[str]
    project: list[Project]
    shift: npt.NDArray[np.int32]  # time_shift_us of stored messages; -1: not in message
    counted: bool = True
    """Whether a drain's row of ledger counted them."""

    def __len__(self) -> int:
        return len(self.records)


def session(connection: Connection) -> None:
    """Prepare a connection for reading."""
    with connection.cursor() as cursor:  # the BRIN index, whatever the statistics of a young chunk say
        cursor.execute(
            "SET enable_seqscan = off; SET default_transaction_read_only = on; SET idle_in_transaction_session_timeout = '10min'"
        )
        cursor.execute("SET statement_timeout = %s", (f"{SORT_SECONDS}s",))
    connection.commit()
    if isinstance(connection, BoundedConnection):
        connection.answer_seconds = SORT_SECONDS + 15.0


def read(
    connection: Connection, settings: Settings, selection: Selection, part: Slice, after: Key | None
) -> Iterator[tuple[ReplayBatch, Key]]:
    """Batches of the slice's rows behind `after`, in the order of Key and bounded as a drain's are, each with its last key. The slice is
    one reading transaction; another replay may move rows meanwhile."""
    parameters = selection.parameters() | {
        "start": interval(part.start if after is None else after[0]),
        "end": interval(part.end),
        "partition": part.partition,
        "generation": part.generation,
        "first": part.first,
        "last": part.last,
        "after_time": interval(0 if after is None else after[0]),
        "after_partition": -1 if after is None else after[1],
        "after_place": -1 if after is None else after[2],
    }
    cursor = connection.cursor(name="replay_rows")
    try:
        cursor.execute(_ROWS, parameters)
        batch: list[tuple[Any, ...]] = []
        size, room = 0, 64
        while got := cursor.fetchmany(room):
            batch += got
            size += sum(len(row[10]) for row in got)
            left = settings.drain_batch_records - len(batch), settings.drain_batch_bytes - size
            room = max(1, min(FETCH, left[0], int(left[1] * len(batch) / max(1, size))))
            if min(left) <= 0:
                yield batch_of_rows(batch), batch[-1][:3]
                batch, size, room = [], 0, 64
    finally:
        if not connection.closed:
            connection.rollback()
    if batch:  # the last one, or the only one, is written after the reading transaction
        yield batch_of_rows(batch), batch[-1][:3]


def batch_of_rows(rows: list[tuple[Any, ...]]) -> ReplayBatch:
    """Rows of the query as columns, in offset order within each partition as a drain has them."""
    rows = sorted(rows, key=itemgetter(1, 2))
    (
        received,
        partition,
        place,
        sequence,
        copies,
        connection,
        packet,
        flags,
        topics,
        topic_bytes,
        payloads,
        reasons,
        details,
        shift,
        *names,
    ) = zip(*rows, strict=True)
    count = len(rows)
    generation, offset = split_place(np.array(place, np.int64))
    envelope = Envelopes(
        readable=np.array([value is not None for value in sequence], np.bool_),
        received_at=np.array(received, np.int64),
        flags=np.array([value or 0 for value in flags], np.uint8),
        packet_id=np.array([value or 0 for value in packet], np.int32),
        sequence=np.array([value or 0 for value in sequence], np.int64),
        connection=np.full(count, -1, np.int32),
        connections=[],
    )
    records = Records(
        topics=list(map(topic_of, topics, topic_bytes)),
        payloads=list(map(bytes, payloads)),
        partition=np.array(partition, np.int32),
        offset=offset,
        envelope=envelope,
        ranges={},
        generation=generation,
    )
    return ReplayBatch(
        records=records,
        in_quarantine=np.array([reason is not None for reason in reasons], np.bool_),
        restored=np.zeros(count, np.bool_),
        connection_id=np.array([value or 0 for value in connection], np.int32),
        duplicate_of=np.array([-1 if value is None else value for value in copies], np.int64),
        reason=[reason or "" for reason in reasons],
        detail=[detail or "" for detail in details],
        project=list(zip(*names, strict=True)),
        shift=np.array([-1 if reason is not None else value or 0 for value, reason in zip(shift, reasons, strict=True)], np.int32),
    )
