"""What a replay works on: stored records by receive time or by Kafka offsets, cut into slices that are read one after the other."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, NamedTuple

from psycopg2.extensions import connection as Connection  # noqa: N812

from iot_platform.settings import Settings
from iot_platform.telemetry.envelope import EARLIEST, LATEST
from iot_platform.telemetry.offsets import OffsetRow

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
WHERE kafka_topic = %s AND topic_id = %s AND kafka_partition = %s AND kind <> 'replay' AND from_offset < %s AND to_offset > %s
ORDER BY from_offset, batch_id"""
_BEGINNING: Final = (
    "SELECT min(from_offset) FROM ledger WHERE kafka_topic = %s AND topic_id = %s AND kafka_partition = %s AND kind <> 'replay'"
)


@dataclass(frozen=True)
class Selection:
    """Records received in [start, end) (µs), or those of one Kafka partition with offsets in [first, last); of them only the given tenant's
    and project's (as stored, or as the rules of today name them), only quarantined ones, only those with one of the reasons."""

    start: int = EARLIEST
    end: int = LATEST
    partition: int | None = None
    first: int = 0
    last: int = 0
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
            "start": f"{self.start} microseconds",
            "end": f"{self.end} microseconds",
            "tenant": self.tenant,
            "project": self.project,
            "quarantined": self.quarantined,
            "reasons": list(self.reasons) or None,
        }


@dataclass(frozen=True)
class Slice:
    """Rows with start ≤ receive time < end (µs), and of one partition the offsets [first, last) if that is what was selected. `records`
    is an estimate for the progress bar. `empty`: how many of the offsets Kafka has no record for; None: unknown. `counted`: a drain's batch
    covers them, so that its row of ledger counted what they became."""

    start: int
    end: int
    records: int
    partition: int | None = None
    first: int = 0
    last: int = 0
    empty: int | None = None
    counted: bool = True


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


def by_offset(connection: Connection, settings: Settings, selection: Selection, row: OffsetRow) -> list[Slice]:
    """Slices of the offsets that are drained, in their order: those of batches, and those that the ledger leaves out between its batches.
    Accepted losses are in none, nor is what was before the ledger's oldest batch."""
    place = (settings.kafka_topic, row.topic_id, row.partition)
    with connection.cursor() as cursor:
        cursor.execute(_BEGINNING, place)
        found = cursor.fetchone()
    position = max(selection.first, found[0]) if found is not None and found[0] is not None else selection.last
    end = min(selection.last, row.next_offset)
    slices: list[Slice] = []
    gathered: list[_Batch] = []
    for batch in (*_batches(connection, (*place, end, selection.first)), _Batch("end", end, end, 0, None, None)):
        full = bool(gathered) and gathered[-1].end - gathered[0].first >= settings.drain_batch_records
        if gathered and (full or batch.kind != "drain" or batch.first != gathered[-1].end):
            slices.append(_slice(selection, gathered))
            gathered = []
        if batch.first > position:
            slices.append(Slice(0, 0, batch.first - position, row.partition, position, batch.first, counted=False))
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


def _slice(selection: Selection, batches: list[_Batch]) -> Slice:
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
    )
