"""Writes a replayed batch in one transaction: quarantined records that decode now move, what is missing is added, nothing else."""

from typing import Final

import numpy as np
from psycopg2.extensions import connection as Connection  # noqa: N812
from psycopg2.extensions import cursor as Cursor  # noqa: N812

from iot_platform.database.interval import interval
from iot_platform.database.locks import lock_key
from iot_platform.telemetry.decode.sparkplug.births import BatchBirths
from iot_platform.telemetry.drain import sparkplug, stage
from iot_platform.telemetry.drain.catalog import Catalog, ConnectionIds
from iot_platform.telemetry.drain.measurements import MeasurementWriter, note_latest
from iot_platform.telemetry.drain.plan import QUARANTINE, Copies, detail_text, message_rows, quarantine_rows
from iot_platform.telemetry.drain.quality_notes import note_unpunctual
from iot_platform.telemetry.drain.stage import copy
from iot_platform.telemetry.drain.writer import WriterRules, note_connections
from iot_platform.telemetry.duplicates.redelivery import Redelivery
from iot_platform.telemetry.duplicates.repeats import streams
from iot_platform.telemetry.records import DecodedRecords
from iot_platform.telemetry.replay import batch_counts
from iot_platform.telemetry.replay.plan import Bools, Work
from iot_platform.telemetry.replay.removed import Removed
from iot_platform.telemetry.replay.rows import ReplayBatch
from iot_platform.telemetry.replay.selection import Selection
from iot_platform.telemetry.replay.tally import Tally
from iot_platform.telemetry.retries import LedgerKey

_LOCK: Final = "SELECT pg_advisory_xact_lock(%s)"
# In all three: the times as a range of constants too, or TimescaleDB would look into every chunk.
_TAKE: Final = """
DELETE FROM quarantine q
USING unnest(%(received_at)s::bigint[], %(partition)s::int[], %(place)s::bigint[]) v (received_at, kafka_partition, place)
WHERE q.received_at BETWEEN 'epoch'::timestamptz + %(first)s::interval AND 'epoch'::timestamptz + %(last)s::interval
    AND q.received_at = 'epoch'::timestamptz + v.received_at * interval '1 microsecond'
    AND q.kafka_partition = v.kafka_partition AND record_place(q.log_generation, q.kafka_offset) = v.place
RETURNING q.kafka_partition, record_place(q.log_generation, q.kafka_offset)"""
_UPDATE: Final = """
UPDATE quarantine q SET reason = v.reason, detail = v.detail, tenant_id = v.tenant_id, project_id = v.project_id
FROM unnest(%(received_at)s::bigint[], %(partition)s::int[], %(place)s::bigint[], %(reason)s::text[], %(detail)s::text[],
    %(tenant)s::text[], %(project)s::text[]) v (received_at, kafka_partition, place, reason, detail, tenant_id, project_id)
WHERE q.received_at BETWEEN 'epoch'::timestamptz + %(first)s::interval AND 'epoch'::timestamptz + %(last)s::interval
    AND q.received_at = 'epoch'::timestamptz + v.received_at * interval '1 microsecond'
    AND q.kafka_partition = v.kafka_partition AND record_place(q.log_generation, q.kafka_offset) = v.place
RETURNING q.kafka_partition, record_place(q.log_generation, q.kafka_offset)"""
_PRESENT: Final = """
SELECT t.kafka_partition, t.place FROM (
    SELECT received_at, kafka_partition, record_place(log_generation, kafka_offset) AS place FROM message
    WHERE received_at BETWEEN 'epoch'::timestamptz + %(first)s::interval AND 'epoch'::timestamptz + %(last)s::interval
        AND kafka_offset = ANY (%(offset)s)
    UNION ALL
    SELECT received_at, kafka_partition, record_place(log_generation, kafka_offset) AS place FROM quarantine
    WHERE received_at BETWEEN 'epoch'::timestamptz + %(first)s::interval AND 'epoch'::timestamptz + %(last)s::interval
        AND kafka_offset = ANY (%(offset)s)
) t
JOIN unnest(%(received_at)s::bigint[], %(partition)s::int[], %(place)s::bigint[]) v (received_at, kafka_partition, place)
    ON t.received_at = 'epoch'::timestamptz + v.received_at * interval '1 microsecond'
    AND t.kafka_partition = v.kafka_partition AND t.place = v.place"""


class ReplayWriter:
    """Writes batches over one connection, one after the other. After any exception it must not be used again: repeat the batch with a
    new one. `dry_run`: everything is judged, nothing is written."""

    def __init__(
        self, connection: Connection, rules: WriterRules, selection: Selection, topic_ids: dict[int, str], *, dry_run: bool = False
    ) -> None:
        self._connection = connection
        self._rules = rules
        self._selection = selection
        self._names = batch_counts.Names(rules.topic, topic_ids, rules.run_id)
        self._dry_run = dry_run
        self._catalog: Catalog | None = None
        self._connections = ConnectionIds(connection)
        self._measurements = MeasurementWriter(connection, rules.options, is_drain=False)
        self.in_doubt: tuple[Tally, list[LedgerKey]] | None = None
        """What a COMMIT that was sent and not answered would have done, and its rows of ledger."""
        with connection.cursor() as cursor:
            cursor.execute(stage.CREATE)
        connection.commit()

    def write(self, replayed: ReplayBatch, batch: DecodedRecords) -> Tally:
        """Commit a batch. When it raises, nothing has happened (or, `in_doubt`, everything).

        Raises:
            psycopg2.Error: see database.errors.is_transient. Retry with a new writer, or never.
        """
        while True:
            if self._catalog is None or self._catalog.decoder is not batch.decoder:
                self._catalog = Catalog(self._connection, batch.decoder, self._rules.max_series_per_project, create=not self._dry_run)
            removed = Removed.look(self._connection, self._names.topic_ids) if replayed.restored.any() else Removed()
            work = Work.of(replayed, batch, self._copies(replayed), self._catalog, selection=self._selection, removed=removed)
            if self._dry_run:
                work.result = self._measurements.look(work.select(), self._catalog)
                return work.tally()
            tally = self._commit(work, self._catalog)
            if tally is not None:
                return tally
            self._connection.rollback()
            self._catalog = None  # names were deleted with their tenant

    def _copies(self, replayed: ReplayBatch) -> Copies:
        """What the tables know of repetitions; of restored records, what a search finds. Commits connections that are new."""
        if self._dry_run or not replayed.restored.any():
            return Copies([], replayed.duplicate_of, replayed.connection_id)
        records = replayed.records
        ids = self._connections.resolve(records.envelope.connections)
        found = list(streams(records, ids))
        first = Redelivery(self._connection, self._rules.in_flight_window).find(records, found)
        # Later copies name this one, or the same first one.
        return Copies(found, np.where(first < records.places, first, -1), ids[records.envelope.connection])

    def _commit(self, work: Work, catalog: Catalog) -> Tally | None:
        """None, and nothing committed, if the catalog is not current any more."""
        with self._connection.cursor() as cursor:
            if not catalog.hold(cursor):
                return None
            self._claim(cursor, work)
            values = work.select()
            work.result, latest = self._measurements.write(values, catalog)
            _write_rows(cursor, work)
            note_unpunctual(cursor, values, work.result, None)
            note_connections(cursor, work.plan)
            sparkplug.write(cursor, _births(work))
            keys = batch_counts.write(cursor, self._names, work)
        tally = work.tally()
        if not keys:
            self._connection.rollback()
            return tally
        self.in_doubt = tally, keys
        self._connection.commit()
        self.in_doubt = None
        note_latest(catalog, values, latest)
        return tally

    def _claim(self, cursor: Cursor, work: Work) -> None:
        """Take what moves out of quarantine, first of all. The replay that deletes a row from quarantine owns it. Another replay of the
        same partition waits until this one has committed. What the other one moved or restored before is left out."""
        changing = work.leave | work.update | work.restore
        for partition in np.unique(work.plan.records.partition[changing]).tolist():
            cursor.execute(_LOCK, (lock_key(f"replay-partition-{partition}"),))
        for mask, query, must_be_there in ((work.leave, _TAKE, True), (work.restore, _PRESENT, False), (work.update, _UPDATE, True)):
            if not mask.any():
                continue
            cursor.execute(query, _keys(work, mask) | (_new_reasons(work) if query is _UPDATE else {}))
            found = set(cursor.fetchall())
            lost = np.flatnonzero(mask)[[(place in found) is not must_be_there for place in work.places(mask)]]
            mask[lost] = work.staying[lost] = False
            work.elsewhere[lost] = True


def _write_rows(cursor: Cursor, work: Work) -> None:
    plan = work.plan
    copy_messages, messages = message_rows(plan, work.catalog, np.flatnonzero((work.leave | work.restore) & ~plan.is_bad), work.shifts)
    if messages:
        copy(cursor, copy_messages, messages)
    if quarantine := quarantine_rows(plan, np.flatnonzero(work.restore & plan.is_bad).tolist()):
        copy(cursor, QUARANTINE, quarantine)


def _births(work: Work) -> BatchBirths:
    """Those of the records that are worked on: what went with its tenant does not come back."""
    found = work.plan.decoded.births
    places = set(work.places(work.leave | work.staying | work.restore | work.stored)) if found.born else set()
    return found._replace(born=[birth for birth in found.born if (birth.at.partition, birth.at.place) in places])


def _new_reasons(work: Work) -> dict[str, object]:
    rows = np.flatnonzero(work.update)
    projects = work.projects(rows)
    return {
        "reason": [str(work.plan.bad[row][0]) for row in rows.tolist()],
        "detail": [detail_text(work.plan.bad[row][1]) for row in rows.tolist()],
        "tenant": [tenant for tenant, _ in projects],
        "project": [project for _, project in projects],
    }


def _keys(work: Work, mask: Bools) -> dict[str, object]:
    records = work.plan.records
    times = records.envelope.received_at[mask]
    return {
        "first": interval(times.min()),
        "last": interval(times.max()),
        "received_at": times.tolist(),
        "partition": records.partition[mask].tolist(),
        "offset": records.offset[mask].tolist(),
        "place": records.places[mask].tolist(),
    }
