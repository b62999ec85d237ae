"""What each tenant has: projects, devices, series, messages, measurements, times, and about how many bytes."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from psycopg2.extensions import connection as Connection  # noqa: N812

from iot_platform.tenants.errors import TenantError

# Bytes: each table's size divided by its rows (both from the statistics), times the rows that accounting_1h says are kept.
_BYTES: Final = """
size AS (
    SELECT t.table_name, coalesce(sum(c.bytes), 0) / greatest(1, approximate_row_count(t.relation)) AS row_bytes
    FROM retention_tables() t LEFT JOIN LATERAL retention_chunks(t.table_name) c ON true
    WHERE t.table_name IN ('message', 'measurement', 'quarantine') GROUP BY t.table_name, t.relation
), kept AS (
    SELECT max(row_bytes) FILTER (WHERE table_name = 'message') AS message,
        max(row_bytes) FILTER (WHERE table_name = 'measurement') AS measurement,
        max(row_bytes) FILTER (WHERE table_name = 'quarantine') AS quarantine, retention_mark_of('message', '', '') AS message_mark,
        retention_mark_of('measurement', '', '') AS measurement_mark, retention_mark_of('quarantine', '', '') AS quarantine_mark
    FROM size
)"""
_SUMS: Final = """
    SELECT {keys}, sum(a.messages)::bigint AS messages, sum(a.quarantined)::bigint AS quarantined,
        sum(a.measurements)::bigint AS measurements, min(a.hour) AS first_hour, max(a.last_received_at) AS last_received_at,
        round(coalesce(sum(k.message * a.messages) FILTER (WHERE a.hour >= k.message_mark), 0)
            + coalesce(sum(k.measurement * a.measurements) FILTER (WHERE a.hour >= k.measurement_mark), 0)
            + coalesce(sum(k.quarantine * a.quarantined) FILTER (WHERE a.hour >= k.quarantine_mark), 0))::bigint AS bytes
    FROM accounting_1h a CROSS JOIN kept k
    WHERE a.tenant_id <> '' AND (%(tenant)s::text IS NULL OR a.tenant_id = %(tenant)s) GROUP BY {keys}"""
_TENANTS: Final = f"""
WITH {_BYTES}, sums AS ({_SUMS.format(keys="a.tenant_id")})
SELECT tenant_id, coalesce(p.projects, 0), coalesce(d.devices, 0), coalesce(p.series, 0), coalesce(s.messages, 0),
    coalesce(s.quarantined, 0), coalesce(s.measurements, 0), s.first_hour, s.last_received_at, coalesce(s.bytes, 0),
    EXISTS (SELECT FROM tenant_deletion t WHERE t.tenant_id = coalesce(s.tenant_id, p.tenant_id) AND t.finished_at IS NULL)
FROM sums s
FULL JOIN (SELECT tenant_id, count(*) AS projects, sum(series_count)::bigint AS series FROM project
    WHERE %(tenant)s::text IS NULL OR tenant_id = %(tenant)s GROUP BY 1) p USING (tenant_id)
LEFT JOIN (SELECT tenant_id, count(DISTINCT (project_id, device_id)) AS devices FROM source
    WHERE device_id <> '' AND (%(tenant)s::text IS NULL OR tenant_id = %(tenant)s) GROUP BY 1) d USING (tenant_id)
ORDER BY 1"""  # noqa: S608 - our own constants
_PROJECTS: Final = f"""
WITH {_BYTES}, sums AS ({_SUMS.format(keys="a.tenant_id, a.project_id")})
SELECT project_id, coalesce(d.devices, 0), coalesce(p.series_count, 0), coalesce(s.messages, 0), coalesce(s.quarantined, 0),
    coalesce(s.measurements, 0), s.first_hour, s.last_received_at, coalesce(s.bytes, 0)
FROM sums s
FULL JOIN (SELECT project_id, series_count FROM project WHERE tenant_id = %(tenant)s) p USING (project_id)
LEFT JOIN (SELECT project_id, count(DISTINCT device_id) AS devices FROM source
    WHERE device_id <> '' AND tenant_id = %(tenant)s GROUP BY 1) d
    USING (project_id)
ORDER BY 1"""  # noqa: S608 - our own constants


@dataclass(frozen=True)
class ProjectSummary:
    """What one project has. Counts of messages and measurements are those since the ledger's beginning, whatever retention took; `bytes` is
    an estimate of what is kept; `first` is the hour of the first message."""

    project: str
    devices: int
    series: int
    messages: int
    quarantined: int
    measurements: int
    first: datetime | None
    last: datetime | None
    bytes: int


@dataclass(frozen=True)
class TenantSummary:
    """The same of one tenant. `deleting`: a deletion has begun and is not finished."""

    tenant: str
    projects: int
    devices: int
    series: int
    messages: int
    quarantined: int
    measurements: int
    first: datetime | None
    last: datetime | None
    bytes: int
    deleting: bool


def tenants(connection: Connection, tenant: str | None = None) -> list[TenantSummary]:
    """All tenants, or one."""
    with connection.cursor() as cursor:
        cursor.execute(_TENANTS, {"tenant": tenant})
        found = [TenantSummary(*row) for row in cursor.fetchall()]
    connection.rollback()
    return found


def projects(connection: Connection, tenant: str) -> list[ProjectSummary]:
    """The tenant's projects."""
    with connection.cursor() as cursor:
        cursor.execute(_PROJECTS, {"tenant": tenant})
        found = [ProjectSummary(*row) for row in cursor.fetchall()]
    connection.rollback()
    return found


def require(connection: Connection, tenant: str) -> TenantSummary:
    """The tenant's summary.

    Raises:
        TenantError: there is no such tenant.
    """
    found = tenants(connection, tenant)
    if not tenant or not found:
        raise TenantError(f"there is no tenant {tenant!r}: see iot tenant list")
    return found[0]
