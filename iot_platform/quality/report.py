"""What the rules found, read for people and for asset checks."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from psycopg2.extensions import connection as Connection  # noqa: N812

from iot_platform.quality.statements import RULES

SHOWN: Final = 20
_INCIDENTS: Final = """
SELECT opened_at, closed_at, last_seen_at, rule, severity, tenant_id, project_id, device_id, metric, message, value, threshold, flaps,
    evaluations, example, kafka_partition, kafka_offset, incident_id
FROM quality_incident
WHERE (%(tenant)s::text IS NULL OR tenant_id = %(tenant)s) AND (%(rule)s::text IS NULL OR rule = %(rule)s)
    AND (closed_at IS NULL OR (NOT %(open)s AND last_seen_at >= now() - make_interval(days => %(days)s)))
ORDER BY closed_at IS NOT NULL, severity, opened_at DESC LIMIT %(most)s"""
_STATES: Final = """
SELECT r.rule, r.severity, r.enabled, r.description, w.evaluated_at, w.horizon, coalesce(w.seconds, 0), w.error,
    (SELECT count(*) FROM quality_incident i WHERE i.rule = r.rule AND i.closed_at IS NULL),
    (SELECT count(DISTINCT i.tenant_id) FROM quality_incident i WHERE i.rule = r.rule AND i.closed_at IS NULL),
    (SELECT bool_or(i.severity = 'ERROR') FROM quality_incident i WHERE i.rule = r.rule AND i.closed_at IS NULL)
FROM quality_rule r LEFT JOIN quality_watermark w USING (rule)
WHERE r.tenant_id = '' AND r.project_id = '' AND r.metric = ''"""
_TENANTS: Final = """
SELECT tenant_id, count(*), count(DISTINCT project_id) FROM quality_incident WHERE rule = %s AND closed_at IS NULL
GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT %s"""
_STATE: Final = ("rule", "severity", "enabled", "description", "evaluated_at", "horizon", "seconds", "error", "open", "tenants")


@dataclass(frozen=True)
class Incident:
    """A row of quality_incident."""

    opened_at: datetime
    closed_at: datetime | None
    last_seen_at: datetime
    rule: str
    severity: str
    tenant: str
    project: str
    device: str
    metric: str
    message: str
    value: float | None
    threshold: float | None
    flaps: int
    evaluations: int
    example: dict[str, Any] | None
    kafka_partition: int | None
    kafka_offset: int | None
    incident_id: int


@dataclass(frozen=True)
class RuleState:
    """One rule: its default settings, last evaluation and open incidents. `worst`: severity among them."""

    rule: str
    severity: str
    enabled: bool
    description: str
    evaluated_at: datetime | None
    horizon: datetime | None
    seconds: float
    error: str | None
    open: int
    tenants: int
    worst: str | None
    by_tenant: list[tuple[str, int, int]] = field(default_factory=list)
    """(tenant, open incidents, projects) of those with most."""


def read_incidents(
    connection: Connection, *, tenant: str | None = None, rule: str | None = None, only_open: bool = True, days: int = 7, most: int = 200
) -> list[Incident]:
    """Open incidents first; `only_open=False` adds those of the last days that ended."""
    parameters = {"tenant": tenant, "rule": rule, "open": only_open, "days": days, "most": most}
    with connection.cursor() as cursor:
        cursor.execute(_INCIDENTS, parameters)
        found = [Incident(*row) for row in cursor.fetchall()]
    connection.commit()
    return found


def read_states(connection: Connection) -> dict[str, RuleState]:
    """Every rule, in the order of RULES."""
    found: dict[str, RuleState] = {}
    with connection.cursor() as cursor:
        cursor.execute(_STATES)
        for row in cursor.fetchall():
            worst = None if not row[8] else "ERROR" if row[10] else "WARN"
            found[row[0]] = RuleState(**dict(zip(_STATE, row, strict=False)), worst=worst)
        for state in found.values():
            if state.open:
                cursor.execute(_TENANTS, (state.rule, SHOWN))
                state.by_tenant.extend(cursor.fetchall())
    connection.commit()
    return {rule: found[rule] for rule in RULES if rule in found}
