"""What each tenant has: projects, devices, series, messages, measurements, times, and about how many bytes."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from psycopg2.extensions import connection as Connection  # noqa: N812

from iot_platform.tenants.errors import TenantError

# Bytes: what a table takes with its indexes and TOAST, shared out by the rows of each that are kept: as the books say, so that nothing
# needs to be counted or analyzed. Messages are kept from everybody's mark on; of measurements, which come late, too, the books know how
# many went. A table of few rows is mostly empty pages and tells nothing: then what was measured elsewhere.
_BYTES: Final = """
size AS (
    SELECT table_name, sum(bytes)::float8 AS bytes FROM disk_chunks() GROUP BY 1
), mark AS MATERIALIZED (
    SELECT retention_mark_of('message', '', '') AS message, retention_mark_of('quarantine', '', '') AS quarantine
), total AS MATERIALIZED (
    SELECT sum(a.messages) FILTER (WHERE a.hour >= m.message)::float8 AS message,
        sum(a.quarantined) FILTER (WHERE a.hour >= m.quarantine)::float8 AS quarantine,
        (sum(a.measurements) + (SELECT coalesce(sum(r.accounted - r.measurements), 0) FROM retention_sum r))::float8 AS measurement
    FROM accounting_1h a CROSS JOIN mark m
), kept AS MATERIALIZED (
    SELECT coalesce(CASE WHEN t.message >= 1000 THEN (SELECT bytes FROM size WHERE table_name = 'message') / t.message END, 200) AS message,
        coalesce(CASE WHEN t.measurement >= 1000 THEN (SELECT bytes FROM size WHERE table_name = 'measurement') / t.measurement END, 100)
            AS measurement,
        coalesce(CASE WHEN t.quarantine >= 1000 THEN (SELECT bytes FROM size WHERE table_name = 'quarantine') / t.quarantine END, 300)
            AS quarantine
    FROM total t
)"""
_SUMS: Final = """
    SELECT {keys}, sum(a.messages)::bigint AS messages, sum(a.quarantined)::bigint AS quarantined,
        sum(a.measurements)::bigint AS measurements, min(a.hour) AS first_hour, max(a.last_received_at) AS last_received_at,
        round((SELECT message FROM kept)
                * coalesce(sum(a.messages) FILTER (WHERE a.hour >= (SELECT message FROM mark)), 0)::float8
            + (SELECT measurement FROM kept) * greatest(0, sum(a.measurements) + coalesce(min(r.rows), 0))::float8
            + (SELECT quarantine FROM kept)
                * coalesce(sum(a.quarantined) FILTER (WHERE a.hour >= (SELECT quarantine FROM mark)), 0)::float8)::bigint AS bytes
    FROM accounting_1h a
    LEFT JOIN (SELECT {keys}, sum(accounted - measurements) AS rows FROM retention_sum GROUP BY {keys}) r USING ({keys})
    WHERE tenant_id <> '' AND (%(tenant)s::text IS NULL OR tenant_id = %(tenant)s) GROUP BY {keys}"""
_TENANTS: Final = f"""
WITH {_BYTES}, sums AS ({_SUMS.format(keys="tenant_id")})
SELECT tenant_id, coalesce(p.projects, 0), coalesce(d.devices, 0), coalesce(p.series, 0), coalesce(s.messages, 0),
    coalesce(s.quarantined, 0), coalesce(s.measurements, 0), s.first_hour, s.last_received_at, coalesce(s.bytes, 0),
    EXISTS (SELECT FROM tenant_deletion t WHERE t.tenant_id = coalesce(s.tenant_id, p.tenant_id) AND t.finished_at IS NULL)
FROM sums s
FULL JOIN (SELECT tenant_id, count(*) AS projects, sum(series_count)::bigint AS series FROM project
    WHERE %(tenant)s::text IS NULL OR tenant_id = %(tenant)s GROUP BY 1) p USING (tenant_id)
LEFT JOIN (SELECT tenant_id, count(*) AS devices FROM (SELECT DISTINCT tenant_id, project_id, device_id FROM source
    WHERE device_id <> '' AND (%(tenant)s::text IS NULL OR tenant_id = %(tenant)s)) n GROUP BY 1) d USING (tenant_id)
ORDER BY 1"""  # noqa: S608 - our own constants
_PROJECTS: Final = f"""
WITH {_BYTES}, sums AS ({_SUMS.format(keys="tenant_id, project_id")})
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
    about what its messages, measurements and quarantined messages that are kept take, with indexes; `first`: hour of the first message."""

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
