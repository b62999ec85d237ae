"""Writes one decoded batch: everything of it in one transaction that begins with a compare-and-set on the offsets."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt
import psycopg2
from psycopg2.extensions import connection as Connection  # noqa: N812
from psycopg2.extensions import cursor as Cursor  # noqa: N812
from psycopg2.extras import execute_values

from iot_platform.telemetry import accounting
from iot_platform.telemetry.accounting import Outcome
from iot_platform.telemetry.catalog import Catalog, ConnectionIds
from iot_platform.telemetry.copy_binary import Column, encode, encode_row, int2, int4, int8, timestamptz
from iot_platform.telemetry.decode import DecodedBatch, Decoder, Reason
from iot_platform.telemetry.errors import DrainedElsewhereError
from iot_platform.telemetry.measurements import CREATE_STAGE, MeasurementWriter, copy, note_latest, select
from iot_platform.telemetry.records import DecodedRecords, Records
from iot_platform.telemetry.redelivery import Redelivery, topic_columns
from iot_platform.telemetry.repeats import Stream, streams

_CLAIM: Final = """
UPDATE kafka_offset o SET next_offset = v.to_offset, updated_at = now()
FROM unnest(%s::int[], %s::bigint[], %s::bigint[]) v (kafka_partition, from_offset, to_offset)
WHERE o.topic = %s AND o.topic_id = %s AND o.kafka_partition = v.kafka_partition AND o.next_offset = v.from_offset"""
_MESSAGE: Final = """
COPY message (received_at, kafka_offset, source_id, kafka_partition, time_source, sequence, connection_id, packet_id, flags,
    duplicate_of, payload) FROM STDIN (FORMAT binary)"""
_QUARANTINE: Final = """
COPY quarantine (received_at, kafka_offset, kafka_partition, reason, detail, tenant_id, project_id, sequence, connection_id, packet_id,
    flags, duplicate_of, topic, topic_bytes, payload) FROM STDIN (FORMAT binary)"""
_CONNECTION: Final = """
INSERT INTO mqtt_connection_partition AS c (connection_id, kafka_partition, last_sequence, first_received_at, last_received_at) VALUES %s
ON CONFLICT (connection_id, kafka_partition) DO UPDATE SET last_sequence = greatest(c.last_sequence, excluded.last_sequence),
    first_received_at = least(c.first_received_at, excluded.first_received_at),
    last_received_at = greatest(c.last_received_at, excluded.last_received_at)"""
_CONNECTION_ROW: Final = "(%s, %s, %s, 'epoch'::timestamptz + %s::interval, 'epoch'::timestamptz + %s::interval)"


@dataclass(frozen=True)
class WriterRules:
    """What a writer must know beyond its batches."""

    topic: str
    topic_id: str
    run_id: str
    max_series_per_project: int
    in_flight_window: int


@dataclass(slots=True)
class Plan:
    """A batch with all its ids: ready to be written."""

    records: Records
    decoded: DecodedBatch
    streams: list[Stream]
    duplicate_of: npt.NDArray[np.int64]  # [n] -1: none
    connection_id: npt.NDArray[np.int32]  # [n]
    bad: dict[int, tuple[Reason, str]] = field(default_factory=dict)
    is_bad: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))


class Writer:
    """Writes batches of one lane over one connection, one after the other, in offset order. After any exception it must not be used
    again: open a new connection and read next_offset."""

    def __init__(self, connection: Connection, rules: WriterRules) -> None:
        self._connection = connection
        self._rules = rules
        self._catalog: Catalog | None = None
        self._connections = ConnectionIds(connection)
        self._redelivery = Redelivery(connection, rules.in_flight_window)
        self._measurements = MeasurementWriter(connection)
        self.in_doubt: Outcome | None = None
        """The batch whose COMMIT was sent and not answered."""
        with connection.cursor() as cursor:
            cursor.execute(CREATE_STAGE)
        connection.commit()

    def write(self, batch: DecodedRecords) -> Outcome:
        """Commit a batch. When it returns, the rows are durable and next_offset has moved; when it raises, neither has happened
        (or, `in_doubt`, both).

        Raises:
            DrainedElsewhereError: another drain took these offsets.
            psycopg2.Error: see is_transient. Retry with a new writer, or never.
        """
        if self._catalog is None or self._catalog.decoder is not batch.decoder:
            self._catalog = Catalog(self._connection, batch.decoder, self._rules.max_series_per_project)
        catalog = self._catalog
        plan = self._plan(batch, catalog)
        keep = ~plan.is_bad & (plan.duplicate_of < 0)
        values = select(plan.decoded, keep, catalog)
        messages = _message_rows(plan, catalog)
        quarantine = _quarantine_rows(plan, batch.decoder)
        with self._connection.cursor() as cursor:
            self._claim(cursor, plan.records)
            if messages:
                copy(cursor, _MESSAGE, messages)
            if quarantine:
                copy(cursor, _QUARANTINE, quarantine)
            result, latest = self._measurements.write(values, catalog)
            self._note_connections(cursor, plan)
            outcome = self._outcome(plan, catalog, values.row, result)
            accounting.write(cursor, outcome, self._rules.topic, self._rules.topic_id, self._rules.run_id)
        self.in_doubt = outcome
        self._connection.commit()
        self.in_doubt = None
        note_latest(catalog, values, latest)
        self._redelivery.committed(plan.records, plan.streams)
        return outcome

    def _plan(self, batch: DecodedRecords, catalog: Catalog) -> Plan:
        records, decoded = batch.records, batch.decoded
        ids = self._connections.resolve(records.envelope.connections)
        batch_streams = list(streams(records, ids))
        plan = Plan(records, decoded, batch_streams, self._redelivery.find(records, batch_streams), ids[records.envelope.connection])
        plan.bad = {row: (reason, detail) for row, reason, detail in decoded.reason}
        plan.is_bad = decoded.source_index < 0
        # A redelivered message needs its source (it is kept), but no series: it has no measurements.
        wanted = ~plan.is_bad & (plan.duplicate_of < 0)
        rejected = catalog.resolve(decoded, wanted)
        rejected += catalog.resolve_sources(decoded, ~plan.is_bad & ~wanted)
        for row, detail in rejected:
            plan.bad[row] = (Reason.SERIES_LIMIT, detail)
            plan.is_bad[row] = True
        return plan

    def _claim(self, cursor: Cursor, records: Records) -> None:
        """The compare-and-set, first of all: whoever wins it owns the offsets."""
        partitions = list(records.ranges)
        starts, ends = zip(*records.ranges.values(), strict=True)
        cursor.execute(_CLAIM, (partitions, list(starts), list(ends), self._rules.topic, self._rules.topic_id))
        if cursor.rowcount != len(partitions):
            self._connection.rollback()
            raise DrainedElsewhereError(f"{len(partitions) - cursor.rowcount} of partitions {partitions} were drained by somebody else")

    def _note_connections(self, cursor: Cursor, plan: Plan) -> None:
        envelope = plan.records.envelope
        rows = []
        for stream in plan.streams:
            times = envelope.received_at[stream.rows]
            edges = (f"{int(times.min())} microseconds", f"{int(times.max())} microseconds")
            rows.append((stream.connection_id, stream.partition, int(envelope.sequence[stream.rows].max()), *edges))
        if rows:
            execute_values(cursor, _CONNECTION, sorted(rows), template=_CONNECTION_ROW, page_size=1000)

    def _outcome(self, plan: Plan, catalog: Catalog, rows: npt.NDArray[np.int32], result: npt.NDArray[np.uint8]) -> Outcome:
        records, source = plan.records, plan.decoded.source_index
        project = np.zeros(len(records), np.int32)
        decoded = source >= 0
        project[decoded] = catalog.source_project[source[decoded]]
        for row, _, _ in plan.decoded.reason:
            project[row] = catalog.project_index(_project_of(records.topics[row], catalog.decoder))
        envelope = records.envelope
        groups = accounting.group(
            partition=records.partition,
            offset=records.offset,
            received_at=envelope.received_at,
            project=project,
            projects=catalog.projects,
            duplicate=plan.duplicate_of >= 0,
            bad=plan.is_bad,
            measurement_row=rows,
            measurement_outcome=result,
        )
        reasons = Counter(str(reason) for reason, _ in plan.bad.values())
        return Outcome(records.ranges, groups, reasons, records.partition, envelope.received_at, plan.is_bad)


def _message_rows(plan: Plan, catalog: Catalog) -> list[bytes]:
    rows = np.flatnonzero(~plan.is_bad)
    if not len(rows):
        return []
    records, envelope = plan.records, plan.records.envelope
    readable = envelope.readable[rows]
    with_header = None if readable.all() else readable
    duplicate_of = plan.duplicate_of[rows]
    payloads = records.payloads if len(rows) == len(records) else [records.payloads[row] for row in rows.tolist()]
    return encode(
        [
            Column("timestamptz", envelope.received_at[rows]),
            Column("int8", records.offset[rows]),
            Column("int4", catalog.source_id[plan.decoded.source_index[rows]]),
            Column("int4", records.partition[rows]),
            Column("int2", plan.decoded.time_source[rows]),
            Column("int8", envelope.sequence[rows], with_header),
            Column("int4", plan.connection_id[rows], with_header),
            Column("int4", envelope.packet_id[rows], with_header),
            Column("int2", envelope.flags[rows], with_header),
            Column("int8", duplicate_of, duplicate_of >= 0),
            Column("bytes", payloads),
        ],
        len(rows),
    )


def _quarantine_rows(plan: Plan, decoder: Decoder) -> list[bytes]:
    records, envelope = plan.records, plan.records.envelope
    pieces = []
    for row, (reason, detail) in plan.bad.items():
        topic, topic_bytes = topic_columns(records.topics[row])
        tenant, project = _project_of(records.topics[row], decoder)
        if (source := int(plan.decoded.source_index[row])) >= 0:
            _, tenant, project, _ = decoder.sources[source]
        readable, duplicate_of = bool(envelope.readable[row]), int(plan.duplicate_of[row])
        pieces.append(
            encode_row(
                (
                    timestamptz(int(envelope.received_at[row])),
                    int8(int(records.offset[row])),
                    int4(int(records.partition[row])),
                    str(reason).encode(),
                    detail.replace("\0", "\\x00").encode("utf-8", "backslashreplace"),
                    tenant.encode(),
                    project.encode(),
                    int8(int(envelope.sequence[row])) if readable else None,
                    int4(int(plan.connection_id[row])) if readable else None,
                    int4(int(envelope.packet_id[row])) if readable else None,
                    int2(int(envelope.flags[row])) if readable else None,
                    int8(duplicate_of) if duplicate_of >= 0 else None,
                    topic.encode(),
                    topic_bytes,
                    records.payloads[row] or b"",
                )
            )
        )
    return pieces


def _project_of(topic: bytes | None, decoder: Decoder) -> tuple[str, str]:
    """Tenant and project as the topic names them; empty where it names none. Never with U+0000, which PostgreSQL cannot store."""
    named = decoder.rules.identify(topic)
    if named is None:
        return ("", "")
    tenant, project = named.tenant or "", named.project or ""
    return ("", "") if "\0" in tenant + project else (tenant, project)


def is_transient(error: psycopg2.Error, connection: Connection | None) -> bool:
    """Whether the same transaction may succeed on a new connection: broken connections, deadlocks, timeouts, shutdowns, failover, full
    disks. Everything else (a constraint, a missing table, a bug) would fail again."""
    if isinstance(error, psycopg2.OperationalError | psycopg2.InterfaceError):
        return True
    if error.pgcode in ("25006", "55P03", "57014"):  # read-only after a failover, lock timeout, statement timeout
        return True
    return error.pgcode is None and (connection is None or connection.closed != 0)
