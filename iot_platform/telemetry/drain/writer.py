"""Writes one decoded batch: everything of it in one transaction that begins with a compare-and-set on the offsets."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt
from psycopg2.extensions import connection as Connection  # noqa: N812
from psycopg2.extensions import cursor as Cursor  # noqa: N812
from psycopg2.extras import execute_values

from iot_platform.database.interval import interval
from iot_platform.telemetry.drain import batch_counts, sparkplug, stage
from iot_platform.telemetry.drain.batch_counts import Outcome
from iot_platform.telemetry.drain.catalog import Catalog, ConnectionIds
from iot_platform.telemetry.drain.conflict_examples import ConflictExamples
from iot_platform.telemetry.drain.measurements import MeasurementWriter, note_latest
from iot_platform.telemetry.drain.plan import (
    NONE_REFUSED,
    QUARANTINE,
    Bad,
    Copies,
    Plan,
    message_rows,
    plan_of,
    project_indices,
    quarantine_rows,
)
from iot_platform.telemetry.drain.quality_notes import note_unpunctual
from iot_platform.telemetry.drain.stage import copy
from iot_platform.telemetry.drain.values import select
from iot_platform.telemetry.duplicates.redelivery import Redelivery
from iot_platform.telemetry.duplicates.repeats import streams
from iot_platform.telemetry.errors import DrainedElsewhereError
from iot_platform.telemetry.project_options import ProjectOptions
from iot_platform.telemetry.records import DecodedRecords, Generations, Records

_CLAIM: Final = """
UPDATE kafka_offset o SET next_offset = v.to_offset, updated_at = now(), leader_epoch = coalesce(v.leader_epoch, o.leader_epoch),
    verified_epoch = coalesce(v.leader_epoch, o.verified_epoch),
    record_offset = coalesce(v.record_offset, o.record_offset), record_sha256 = coalesce(v.record_sha256, o.record_sha256)
FROM unnest(%s::int[], %s::int[], %s::bigint[], %s::bigint[], %s::int[], %s::bigint[], %s::bytea[])
    v (kafka_partition, log_generation, from_offset, to_offset, leader_epoch, record_offset, record_sha256)
WHERE o.topic = %s AND o.topic_id = %s AND o.kafka_partition = v.kafka_partition AND o.log_generation = v.log_generation
    AND o.next_offset = v.from_offset"""
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
    generations: Generations = field(default_factory=dict)
    options: ProjectOptions = field(default_factory=ProjectOptions)
    hopeful: bool = False
    """Whether measurements behind the latest of their series are taken for new until one is not: see MeasurementWriter."""


class Writer:
    """Writes batches of one lane over one connection, one after the other, in offset order. After any exception it must not be used
    again: open a new connection and read next_offset."""

    def __init__(self, connection: Connection, rules: WriterRules) -> None:
        self._connection = connection
        self._rules = rules
        self._catalog: Catalog | None = None
        self._connections = ConnectionIds(connection)
        self._redelivery = Redelivery(connection, rules.in_flight_window)
        self._measurements = MeasurementWriter(connection, rules.options, is_drain=True, hopeful=rules.hopeful)
        self._conflict_examples = ConflictExamples()
        self.in_doubt: Outcome | None = None
        """The batch whose COMMIT was sent and not answered."""
        with connection.cursor() as cursor:
            cursor.execute(stage.CREATE)
        connection.commit()

    def write(self, batch: DecodedRecords, refused: Bad = NONE_REFUSED) -> Outcome:
        """Commit a batch; records that are `refused` go to quarantine for that reason, whatever the decoder made of
        them. When it returns, the rows are durable and next_offset has moved; when it raises, neither has happened
        (or, `in_doubt`, both).

        Raises:
            DrainedElsewhereError: another drain took these offsets.
            psycopg2.Error: see database.errors.is_transient. Retry with a new writer, or never.
        """
        while True:
            if self._catalog is None or self._catalog.decoder is not batch.decoder:
                self._catalog = Catalog(self._connection, batch.decoder, self._rules.max_series_per_project)
            outcome = self._write(batch, self._catalog, refused)
            if outcome is not None:
                return outcome
            self._connection.rollback()
            self._catalog = None  # names were deleted with their tenant: they come anew, as those of a new one

    def _write(self, batch: DecodedRecords, catalog: Catalog, refused: Bad) -> Outcome | None:
        """None, and nothing committed, if the catalog is not current any more."""
        plan = self._plan(batch, catalog, refused)
        values = select(plan, plan.measured, catalog)
        quarantine = quarantine_rows(plan, plan.bad)
        with self._connection.cursor() as cursor:
            self._claim(cursor, plan.records)
            if not catalog.hold(cursor):
                return None
            result, latest = self._measurements.write(values, catalog)
            copy_messages, messages = message_rows(plan, catalog, np.flatnonzero(~plan.is_bad), values.shifts)
            if messages:
                copy(cursor, copy_messages, messages)
            if quarantine:
                copy(cursor, QUARANTINE, quarantine)
            note_unpunctual(cursor, values, result, plan.records.envelope.received_at)
            note_connections(cursor, plan)
            sparkplug.write(cursor, plan.decoded.births)
            outcome = self._outcome(plan, catalog, values.row, result)
            self._conflict_examples.fill(cursor, outcome.groups, values, plan.records)
            batch_counts.write(cursor, outcome, self._rules.topic, self._rules.topic_id, self._rules.run_id)
        self.in_doubt = outcome
        self._connection.commit()
        self.in_doubt = None
        note_latest(catalog, values, latest)
        self._redelivery.committed(plan.records, plan.copies.streams)
        return outcome

    def _plan(self, batch: DecodedRecords, catalog: Catalog, refused: Bad) -> Plan:
        """Commits names and connections that are new."""
        records = batch.records
        ids = self._connections.resolve(records.envelope.connections)
        found = list(streams(records, ids))
        copies = Copies(found, self._redelivery.find(records, found), ids[records.envelope.connection])
        return plan_of(catalog, batch, copies, refused)

    def _claim(self, cursor: Cursor, records: Records) -> None:
        """The compare-and-set, first of all. The transaction whose update succeeds owns the offsets."""
        partitions = list(records.ranges)
        starts, ends = zip(*records.ranges.values(), strict=True)
        generations = [self._rules.generations.get(partition, 0) for partition in partitions]
        last = [records.last.get(partition) for partition in partitions]
        epochs = [item and item.leader_epoch for item in last]
        tips = [item and item.offset for item in last], [item and item.sha256 for item in last]
        cursor.execute(_CLAIM, (partitions, generations, list(starts), list(ends), epochs, *tips, self._rules.topic, self._rules.topic_id))
        if cursor.rowcount != len(partitions):
            self._connection.rollback()
            raise DrainedElsewhereError(f"{len(partitions) - cursor.rowcount} of partitions {partitions} were drained by somebody else")

    def _outcome(self, plan: Plan, catalog: Catalog, rows: npt.NDArray[np.int32], result: npt.NDArray[np.uint8]) -> Outcome:
        records = plan.records
        envelope = records.envelope
        groups = batch_counts.group(
            partition=records.partition,
            offset=records.offset,
            received_at=envelope.received_at,
            project=project_indices(plan, catalog),
            projects=catalog.projects,
            duplicate=plan.duplicate_of >= 0,
            bad=plan.is_bad,
            measurement_row=rows,
            measurement_outcome=result,
        )
        reasons = Counter(str(reason) for reason, _ in plan.bad.values())
        return Outcome(
            records.ranges,
            groups,
            reasons,
            records.partition,
            envelope.received_at,
            plan.is_bad,
            records.empty,
            records.last,
            self._rules.generations,
            plan.decoded.local_times,
        )


def note_connections(cursor: Cursor, plan: Plan) -> None:
    """Widen what mqtt_connection_partition knows of the plan's streams."""
    envelope = plan.records.envelope
    rows = []
    for stream in plan.copies.streams:
        times = envelope.received_at[stream.rows]
        edges = (interval(times.min()), interval(times.max()))
        rows.append((stream.connection_id, stream.partition, int(envelope.sequence[stream.rows].max()), *edges))
    if rows:
        execute_values(cursor, _CONNECTION, sorted(rows), template=_CONNECTION_ROW, page_size=1000)
