"""What a replay works on: stored records by receive time or by Kafka offsets, cut into slices that are read one after the other."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from psycopg2.extensions import connection as Connection  # noqa: N812

from iot_platform.settings import Settings
from iot_platform.telemetry.envelope import EARLIEST, LATEST

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
SELECT from_offset, to_offset, empty_offsets, (extract(epoch FROM first_received_at) * 1000000)::bigint,
    (extract(epoch FROM last_received_at) * 1000000)::bigint
FROM ledger
WHERE kafka_topic = %s AND topic_id = %s AND kafka_partition = %s AND kind = 'drain' AND from_offset < %s AND to_offset > %s
ORDER BY from_offset"""


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
    is an estimate for the progress bar. `empty`: how many of the offsets Kafka has no record for; None: unknown."""

    start: int
    end: int
    records: int
    partition: int | None = None
    first: int = 0
    last: int = 0
    empty: int | None = None


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


def by_offset(connection: Connection, settings: Settings, selection: Selection, topic_id: str) -> list[Slice]:
    """Slices of the batches that the ledger has for the offsets, in their order. What no batch covers is in none."""
    slices: list[Slice] = []
    gathered: list[tuple[int, int, int, int | None, int | None]] = []
    for batch in _batches(connection, settings, selection, topic_id):
        if gathered and (batch[0] != gathered[-1][1] or gathered[-1][1] - gathered[0][0] >= settings.drain_batch_records):
            slices.append(_slice(selection, gathered))
            gathered = []
        gathered.append(batch)
    return [*slices, _slice(selection, gathered)] if gathered else slices


def _batches(
    connection: Connection, settings: Settings, selection: Selection, topic_id: str
) -> Iterator[tuple[int, int, int, int | None, int | None]]:
    cursor = connection.cursor(name="replay_batches")
    cursor.execute(_BATCHES, (settings.kafka_topic, topic_id, selection.partition, selection.last, selection.first))
    yield from cursor
    cursor.close()
    connection.rollback()


def _slice(selection: Selection, batches: list[tuple[int, int, int, int | None, int | None]]) -> Slice:
    first, last = max(batches[0][0], selection.first), min(batches[-1][1], selection.last)
    starts = [batch[3] for batch in batches if batch[3] is not None]
    ends = [batch[4] for batch in batches if batch[4] is not None]
    whole = first == batches[0][0] and last == batches[-1][1]
    return Slice(
        start=min(starts, default=0),
        end=max(ends, default=-1) + 1,
        records=last - first,
        partition=selection.partition,
        first=first,
        last=last,
        empty=sum(batch[2] for batch in batches) if whole else None,
    )
