"""What a replay works on: stored records by receive time or by Kafka offsets, cut into slices that are read one after the other."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Final, NamedTuple

from psycopg2.extensions import connection as Connection  # noqa: N812

from iot_platform.database.interval import interval
from iot_platform.settings import Settings
from iot_platform.telemetry.drain.offsets import OffsetRow
from iot_platform.telemetry.envelope import EARLIEST, LATEST
from iot_platform.telemetry.partitions import topic_of_partition

NO_END: Final = 1 << 62
"""As an offset: beyond all."""
SLICE_ROWS: Final = 50_000
"""About how many rows one reading transaction sorts."""
HOUR_US: Final = 3_600_000_000

_HOURS: Final = """
SELECT (extract(epoch FROM hour) * 1000000)::bigint, sum(records)::bigint FROM (
    SELECT hour, messages AS records FROM accounting_1h
    WHERE NOT %(quarantined)s AND messages > 0 AND (%(tenant)s::text IS NULL OR tenant_id = %(tenant)s)
      AND (%(project)s::text IS NULL OR project_id = %(project)s)
      AND hour > 'epoch'::timestamptz + %(start)s::interval - interval '1 hour' AND hour < 'epoch'::timestamptz + %(end)s::interval
    UNION ALL
    SELECT date_trunc('hour', received_at), count(*) FROM quarantine
    WHERE received_at >= 'epoch'::timestamptz + %(start)s::interval AND received_at < 'epoch'::timestamptz + %(end)s::interval
      AND (%(reasons)s::text[] IS NULL OR reason = ANY (%(reasons)s))
      AND (%(tenant)s::text IS NULL OR tenant_id IN (%(tenant)s, '')) AND (%(project)s::text IS NULL OR project_id IN (%(project)s, ''))
    GROUP BY 1
) both_tables GROUP BY 1 ORDER BY 1"""
_BATCHES: Final = """
SELECT kind, from_offset, to_offset, empty_offsets, (extract(epoch FROM first_received_at) * 1000000)::bigint,
    (extract(epoch FROM last_received_at) * 1000000)::bigint
FROM ledger
WHERE kafka_topic = %s AND topic_id = %s AND kafka_partition = %s AND log_generation = %s AND kind IN ('drain', 'accepted_loss')
    AND from_offset < %s AND to_offset > %s
ORDER BY from_offset, batch_id"""
_BEGINNING: Final = """
SELECT min(from_offset) FROM ledger
WHERE kafka_topic = %s AND topic_id = %s AND kafka_partition = %s AND log_generation = %s AND kind IN ('drain', 'accepted_loss')"""
_LOGS: Final = """
SELECT log_generation, min(from_offset), max(CASE kind WHEN 'log_cut' THEN from_offset ELSE to_offset END),
    min(from_offset) FILTER (WHERE kind = 'log_cut')
FROM ledger WHERE kafka_topic = %s AND topic_id = %s AND kafka_partition = %s AND kind <> 'replay' GROUP BY 1 ORDER BY 1"""


@dataclass(frozen=True)
class Selection:
    """Records received in [start, end) (µs), or those of one Kafka partition with offsets in [first, last), of one generation of its log or
    (None) of every one; of them only the given tenant's
    and project's (as stored, or as the rules of today name them), only quarantined ones, only those with one of the reasons."""

    start: int = EARLIEST
    end: int = LATEST
    partition: int | None = None
    first: int = 0
    last: int = 0
    generation: int | None = None
    tenant: str | None = None
    project: str | None = None
    quarantined: bool = False
    reasons: tuple[str, ...] = ()

    @property
    def by_offset(self) -> bool:
        """Whether Kafka offsets select, not times."""
        return self.partition is not None

    def wants(self, *projects: tuple[str, str]) -> bool:
        """Whether one of these (tenant, project) is selected."""
        return any(self.tenant in (None, tenant) and self.project in (None, project) for tenant, project in projects)

    def parameters(self) -> dict[str, Any]:
        """For queries."""
        return {
            "start": interval(self.start),
            "end": interval(self.end),
            "tenant": self.tenant,
            "project": self.project,
            "quarantined": self.quarantined,
            "reasons": list(self.reasons) or None,
        }


@dataclass(frozen=True)
class Slice:
    """Rows with start ≤ receive time < end (µs), and of one partition the offsets [first, last) if that is what was selected. `records`
    is an estimate for the progress bar. `empty`: how many of the offsets Kafka has no record for; None: unknown. `counted`: a drain's batch
    covers them, so that its row of ledger counted what they became. `kafka_to`: from there on Kafka has other records by now."""

    start: int
    end: int
    records: int
    partition: int | None = None
    first: int = 0
    last: int = 0
    empty: int | None = None
    counted: bool = True
    generation: int = 0
    kafka_to: int = NO_END


def by_time(connection: Connection, selection: Selection) -> list[Slice]:
    """Slices of the hours that hold anything, oldest first."""
    with connection.cursor() as cursor:
        cursor.execute(_HOURS, selection.parameters())
        hours = cursor.fetchall()
    connection.rollback()
    slices = []
    for hour, records in hours:
        start, end = max(hour, selection.start), min(hour + HOUR_US, selection.end)
        parts = max(1, -(-records // SLICE_ROWS))
        edges = [start + (end - start) * part // parts for part in range(parts + 1)]
        slices += [Slice(first, last, -(-records // parts)) for first, last in pairwise(edges) if first < last]
    return slices


@dataclass(frozen=True)
class Log:
    """One generation of a partition's log: offsets [begin, end) of it were drained, and Kafka still has those below kafka_to."""

    topic_id: str
    partition: int
    generation: int
    begin: int
    end: int
    kafka_to: int = NO_END


def logs(connection: Connection, settings: Settings, row: OffsetRow) -> list[Log]:
    """The logs that the partition of this topic has had, first one first; one that was taken over from its beginning (`iot offsets accept
    --from-beginning`) has put all that was before it out of Kafka's reach, as far as anybody knows."""
    with connection.cursor() as cursor:
        cursor.execute(_LOGS, (topic_of_partition(row.partition, settings.kafka_topic), row.topic_id, row.partition))
        found = {generation: (begin, end, cut) for generation, begin, end, cut in cursor.fetchall()}
    connection.rollback()
    begin, _, cut = found.get(row.log_generation, (row.next_offset, row.next_offset, None))
    last = Log(row.topic_id, row.partition, row.log_generation, min(begin, row.next_offset), row.next_offset)
    logs, kafka_to = [last], NO_END
    for generation in sorted((number for number in found if number < row.log_generation), reverse=True):
        kafka_to = min(kafka_to, cut if cut is not None else 0)
        begin, end, cut = found[generation]
        logs.append(Log(row.topic_id, row.partition, generation, begin, end, kafka_to))
    logs.reverse()
    return [replace(logs[0], begin=min(row.first_offset, logs[0].begin)), *logs[1:]]


def by_offset(connection: Connection, settings: Settings, selection: Selection, log: Log) -> list[Slice]:
    """Slices of the offsets of a log that are drained, in their order: those of batches, and those that the ledger leaves out between its
    batches. Accepted losses are in none, nor is what was before the ledger's oldest batch."""
    place = (topic_of_partition(log.partition, settings.kafka_topic), log.topic_id, log.partition, log.generation)
    with connection.cursor() as cursor:
        cursor.execute(_BEGINNING, place)
        found = cursor.fetchone()
    position = max(selection.first, found[0]) if found is not None and found[0] is not None else selection.last
    end = min(selection.last, log.end)
    slices: list[Slice] = []
    gathered: list[_Batch] = []
    for batch in (*_batches(connection, (*place, end, selection.first)), _Batch("end", end, end, 0, None, None)):
        full = bool(gathered) and gathered[-1].end - gathered[0].first >= settings.drain_batch_records
        if gathered and (full or batch.kind != "drain" or batch.first != gathered[-1].end):
            slices.append(_slice(selection, log, gathered))
            gathered = []
        if batch.first > position:
            slices.append(_left_out(log, position, batch.first))
        if batch.kind == "drain":
            gathered.append(batch)
        position = max(position, batch.end)
    return slices


class _Batch(NamedTuple):
    kind: str
    first: int
    end: int
    empty: int
    first_received: int | None
    last_received: int | None


def _batches(connection: Connection, parameters: tuple[object, ...]) -> Iterator[_Batch]:
    cursor = connection.cursor(name="replay_batches")
    cursor.execute(_BATCHES, parameters)
    yield from map(_Batch._make, cursor)
    cursor.close()
    connection.rollback()


def _left_out(log: Log, first: int, last: int) -> Slice:
    return Slice(0, 0, last - first, log.partition, first, last, counted=False, generation=log.generation, kafka_to=log.kafka_to)


def _slice(selection: Selection, log: Log, batches: list[_Batch]) -> Slice:
    first, last = max(batches[0].first, selection.first), min(batches[-1].end, selection.last)
    starts = [batch.first_received for batch in batches if batch.first_received is not None]
    ends = [batch.last_received for batch in batches if batch.last_received is not None]
    whole = first == batches[0].first and last == batches[-1].end
    return Slice(
        start=min(starts, default=0),
        end=max(ends, default=-1) + 1,
        records=last - first,
        partition=selection.partition,
        first=first,
        last=last,
        empty=sum(batch.empty for batch in batches) if whole else None,
        generation=log.generation,
        kafka_to=log.kafka_to,
    )
