"""Sums of what was drained, by Kafka partition, project and tenant, and the share of bad messages: from accounting_1h and the ledger."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from psycopg2.extensions import connection as Connection  # noqa: N812

from iot_platform.telemetry.counters import COUNTERS, SUMS, Counts
from iot_platform.telemetry.partitions import FIRST_IMPORT

_PROJECTS = "SELECT tenant_id, project_id FROM project ORDER BY first_seen_at, tenant_id, project_id"
_SUMS = f"""
SELECT tenant_id, project_id, kafka_partition, {SUMS}, min(first_offset), max(last_offset), max(last_received_at)
FROM accounting_1h
WHERE tenant_id = ANY(%(tenants)s)
  AND (%(projects)s::text[] IS NULL OR (tenant_id, project_id) IN (SELECT * FROM unnest(%(tenants)s::text[], %(projects)s::text[])))
GROUP BY tenant_id, project_id, kafka_partition
"""  # noqa: S608 - the names of columns
_PARTITION_SUMS = f"""
SELECT kafka_partition, {SUMS}, min(first_offset), max(last_offset), max(last_received_at)
FROM accounting_1h WHERE kafka_partition = ANY(%s) GROUP BY kafka_partition
"""  # noqa: S608 - as above
_BAD_SHARE = """
SELECT coalesce(sum(messages + quarantined), 0)::bigint, coalesce(sum(quarantined), 0)::bigint
FROM ledger WHERE kafka_topic = %(topic)s AND kind = 'drain' AND committed_at > now() - make_interval(secs => %(window)s)
"""
_BAD_RUN = """
SELECT coalesce(max(length), 0) FROM (
    SELECT count(*) AS length FROM (
        SELECT kafka_partition, kafka_offset - row_number() OVER (PARTITION BY kafka_partition ORDER BY kafka_offset) AS island
        FROM quarantine
        WHERE received_at > (SELECT min(first_received_at) FROM ledger WHERE kafka_topic = %(topic)s
            AND committed_at > now() - make_interval(secs => %(window)s)) AND kafka_partition < %(first_import)s
    ) AS numbered GROUP BY kafka_partition, island
) AS islands
"""


@dataclass
class Figures(Counts):
    """Counters of one partition, project or tenant; `offsets` is {Kafka partition: (first, last offset)}, both inclusive."""

    offsets: dict[int, tuple[int, int]] = field(default_factory=dict)
    last_received_at: datetime | None = None

    def widen(self, other: "Figures") -> None:
        """Add another's counters, and widen offsets and last receive time by its own."""
        self.add(other)
        for partition, (first, last) in other.offsets.items():
            mine = self.offsets.get(partition, (first, last))
            self.offsets[partition] = (min(mine[0], first), max(mine[1], last))
        times = [time for time in (self.last_received_at, other.last_received_at) if time is not None]
        self.last_received_at = max(times, default=None)


def known_projects(connection: Connection) -> list[tuple[str, str]]:
    """Every (tenant, project) in order of appearance."""
    return [(tenant, project) for tenant, project in _rows(connection, _PROJECTS, ())]


def project_figures(connection: Connection, projects: list[tuple[str, str]]) -> dict[tuple[str, str], Figures]:
    """All-time sums of the given projects; one without records is missing."""
    if not projects:
        return {}
    parameters = {"tenants": [tenant for tenant, _ in projects], "projects": [project for _, project in projects]}
    return _sum_by_project(connection, parameters)


def tenant_figures(connection: Connection, tenants: list[str]) -> dict[str, tuple[int, Figures]]:
    """(number of projects, all-time sums) of the given tenants; one without records is missing."""
    result: dict[str, tuple[int, Figures]] = {}
    for (tenant, _), figures in _sum_by_project(connection, {"tenants": tenants, "projects": None}).items():
        count, total = result.get(tenant, (0, Figures()))
        total.widen(figures)
        result[tenant] = (count + 1, total)
    return result


def partition_figures(connection: Connection, partitions: list[int]) -> dict[int, Figures]:
    """All-time sums of the given Kafka partitions."""
    rows = _rows(connection, _PARTITION_SUMS, (partitions,))
    return {row[0]: _figures(row[0], row[1:]) for row in rows}


@dataclass(frozen=True)
class BadShare:
    """What became of the records of a window, and the longest unbroken series of quarantined ones in a partition."""

    records: int
    quarantined: int
    longest_series: int


def bad_share(connection: Connection, topic: str, window_seconds: float, series_from: int) -> BadShare:
    """Share of quarantined records among those from Kafka committed within the window; the series is looked for only when `series_from` are
    bad."""
    parameters = {"topic": topic, "window": window_seconds, "first_import": FIRST_IMPORT}
    ((records, quarantined),) = _rows(connection, _BAD_SHARE, parameters)
    longest = _rows(connection, _BAD_RUN, parameters)[0][0] if quarantined >= series_from else 0
    return BadShare(records, quarantined, longest)


def _sum_by_project(connection: Connection, parameters: Mapping[str, list[str] | None]) -> dict[tuple[str, str], Figures]:
    result: dict[tuple[str, str], Figures] = {}
    for tenant, project, partition, *sums in _rows(connection, _SUMS, parameters):
        result.setdefault((tenant, project), Figures()).widen(_figures(partition, sums))
    return result


def _figures(partition: int, sums: Sequence[Any]) -> Figures:
    *counts, first, last, received_at = sums
    offsets = {partition: (first, last)} if partition >= 0 else {}  # a simulated history has none
    return Figures(**dict(zip(COUNTERS, counts, strict=True)), offsets=offsets, last_received_at=received_at)


def _rows(connection: Connection, query: str, parameters: object) -> list[tuple[Any, ...]]:
    with connection, connection.cursor() as cursor:
        cursor.execute(query, parameters)  # type: ignore[arg-type]
        return cursor.fetchall()
