"""Settings of the quality rules: listed, changed one by one, imported from and exported to YAML. Invalid settings are refused."""

import json
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final, Literal, Self

from psycopg2.extensions import connection as Connection  # noqa: N812
from psycopg2.extras import Json
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from iot_platform.quality.errors import RulesError
from iot_platform.quality.statements import RULES

PARAMETERS: Final[dict[str, dict[str, str]]] = {
    "freshness_device": {"least_messages": "number", "gone_days": "number"},
    "freshness_project": {"least_messages": "number", "gone_days": "number"},
    "completeness": {"least_expected": "number"},
    "range": {"min": "number", "max": "number"},
    "rate_of_change": {},
    "stuck_value": {"least_changes": "number", "resting": "numbers"},
    "type_change": {},
    "clock_skew": {"absolute_seconds": "number", "least_samples": "integer"},
    "duplicate_rate": {"least_messages": "number"},
    "conflict_rate": {"least_conflicts": "number"},
    "quarantine_rate": {"least_messages": "number"},
    "new_series_burst": {"project_seconds": "number"},
    "sequence_gap": {"metrics": "names", "least_steps": "integer"},
    "rollup_equals_source": {"sample": "integer"},
    "ledger_continuous": {},
    "kafka_log_cut": {},
}
"""What each rule takes beyond the columns that all have, and of which kind."""
GLOBAL_ONLY: Final = frozenset({"ledger_continuous", "kafka_log_cut"})
BY_METRIC: Final = frozenset(
    ("range", "rate_of_change", "stuck_value", "type_change", "sequence_gap", "quarantine_rate", "rollup_equals_source")
)
"""Rules that judge single metrics (quarantine_rate: reasons); the others know tenants and projects only."""
SHARES: Final = frozenset(("completeness", "duplicate_rate", "conflict_rate", "quarantine_rate"))
"""Rules whose threshold is a share, not percent."""
MOST: Final = 1_000_000
"""Of what is counted: beyond lies a mistake, and further on an overflow in the statement, which would stop the rule for everybody."""
_COLUMNS: Final = ("enabled", "severity", "threshold", "window_seconds", "clear_seconds", "hold_seconds")

_LIST: Final = """
SELECT rule, tenant_id, project_id, metric, enabled, severity, threshold, window_seconds, clear_seconds, hold_seconds, parameters,
    description
FROM quality_rule ORDER BY rule, tenant_id, project_id, metric"""
_SET: Final = """
INSERT INTO quality_rule AS r (rule, tenant_id, project_id, metric, enabled, severity, threshold, window_seconds, clear_seconds,
    hold_seconds, parameters) VALUES (%(rule)s, %(tenant)s, %(project)s, %(metric)s, %(enabled)s, %(severity)s, %(threshold)s,
    %(window_seconds)s, %(clear_seconds)s, %(hold_seconds)s, %(parameters)s)
ON CONFLICT (rule, tenant_id, project_id, metric) DO UPDATE SET enabled = coalesce(excluded.enabled, r.enabled),
    severity = coalesce(excluded.severity, r.severity), threshold = coalesce(excluded.threshold, r.threshold),
    window_seconds = coalesce(excluded.window_seconds, r.window_seconds), clear_seconds = coalesce(excluded.clear_seconds, r.clear_seconds),
    hold_seconds = coalesce(excluded.hold_seconds, r.hold_seconds), parameters = r.parameters || excluded.parameters, updated_at = now()"""
_SET_DEFAULT: Final = """
UPDATE quality_rule r SET enabled = coalesce(%(enabled)s, r.enabled), severity = coalesce(%(severity)s, r.severity),
    threshold = coalesce(%(threshold)s, r.threshold), window_seconds = coalesce(%(window_seconds)s, r.window_seconds),
    clear_seconds = coalesce(%(clear_seconds)s, r.clear_seconds), hold_seconds = coalesce(%(hold_seconds)s, r.hold_seconds),
    parameters = r.parameters || %(parameters)s, updated_at = now()
WHERE r.rule = %(rule)s AND r.tenant_id = '' AND r.project_id = '' AND r.metric = ''"""
_REMOVE: Final = (
    "DELETE FROM quality_rule WHERE rule = %(rule)s AND tenant_id = %(tenant)s AND project_id = %(project)s AND metric = %(metric)s"
)
_CLOSE_DISABLED: Final = """
UPDATE quality_incident i SET closed_at = greatest(now(), i.last_seen_at)
WHERE i.closed_at IS NULL AND NOT (SELECT s.enabled FROM quality_setting(i.rule, i.tenant_id, i.project_id, i.metric) s)"""


class RuleSetting(BaseModel):
    """One row of quality_rule: a rule's default (no tenant, project, metric), or what one of them has instead. None is inherited."""

    model_config = ConfigDict(extra="forbid", strict=True)

    rule: str
    tenant: str = ""
    project: str = ""
    metric: str = ""
    enabled: bool | None = None
    severity: Literal["WARN", "ERROR"] | None = None
    threshold: float | None = Field(default=None, allow_inf_nan=False)
    window_seconds: int | None = Field(default=None, gt=0, le=31_536_000)
    clear_seconds: int | None = Field(default=None, ge=0, le=31_536_000)
    hold_seconds: int | None = Field(default=None, ge=0, le=31_536_000)
    parameters: dict[str, Any] = Field(default_factory=dict)
    remove: bool = False

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.rule not in RULES:
            raise ValueError(f"there is no rule {self.rule!r}; rules: {', '.join(RULES)}")
        if self.project and not self.tenant:
            raise ValueError("a project needs its tenant")
        if self.is_override and self.rule in GLOBAL_ONLY:
            raise ValueError(f"{self.rule} is about the whole platform: it knows no tenant, project or metric")
        if self.metric and self.rule not in BY_METRIC:
            raise ValueError(f"{self.rule} knows no metrics")
        if self.remove and not self.is_override:
            raise ValueError("a rule's default cannot be removed: set enabled to false")
        if self.threshold is not None and self.threshold < 0:
            raise ValueError("threshold must not be negative")
        if self.threshold is not None and self.rule in SHARES and self.threshold > 1:
            raise ValueError("threshold is a share: 0.05, not 5 percent")
        if self.threshold is not None and self.rule == "stuck_value" and not 2 <= self.threshold <= MOST:
            raise ValueError(f"threshold must be from 2 to {MOST:,}")
        if "\0" in self.tenant + self.project + self.metric:
            raise ValueError("names have no character U+0000")
        if self.rule == "completeness" and self.window_seconds is not None and self.is_override:
            raise ValueError("the interval of completeness (window_seconds) is the same for all")
        self._check_parameters()
        return self

    @property
    def is_override(self) -> bool:
        """Whether it is about some tenant, project or metric."""
        return bool(self.tenant or self.project or self.metric)

    @property
    def scope(self) -> str:
        """For people."""
        named = {"tenant": self.tenant, "project": self.project, "metric": self.metric}
        return ", ".join(f"{name} {value}" for name, value in named.items() if value) or "everything"

    def _check_parameters(self) -> None:
        known = PARAMETERS[self.rule]
        for name, value in self.parameters.items():
            if name not in known:
                raise ValueError(f"{self.rule} has no parameter {name!r}" + (f"; it has {', '.join(known)}" if known else ""))
            if not _is(known[name], value):
                kinds = {
                    "names": "a list of names, not empty",
                    "numbers": "a list of numbers, such as [0]",
                    "integer": f"an integer from 0 to {MOST:,}",
                }
                what = kinds.get(known[name], "a finite number")
                raise ValueError(f"parameter {name} must be {what}")
        if "min" in self.parameters and "max" in self.parameters and self.parameters["min"] > self.parameters["max"]:
            raise ValueError(f"min {self.parameters['min']} is greater than max {self.parameters['max']}")
        if self.rule == "range" and {"min", "max"} & self.parameters.keys() and not self.metric:
            raise ValueError("range has limits for a metric: name it")
        if self.rule == "rate_of_change" and self.threshold is not None and not self.metric:
            raise ValueError("rate_of_change has a threshold for a metric: name it")


def _is(kind: str, value: object) -> bool:
    if kind == "names":
        return isinstance(value, list) and bool(value) and all(isinstance(item, str) and item and "\0" not in item for item in value)
    if kind == "numbers":
        return isinstance(value, list) and all(_is("number", item) for item in value)
    if isinstance(value, bool) or not isinstance(value, int if kind == "integer" else (int, float)):
        return False
    return 0 <= value <= MOST if kind == "integer" else abs(value) < 1e300


def parse_setting(values: Mapping[str, Any], place: str) -> RuleSetting:
    """A validated setting.

    Raises:
        RulesError: with `place` before the reason.
    """
    try:
        return RuleSetting.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(item) for item in first["loc"])
        reason = first["msg"].removeprefix("Value error, ")
        raise RulesError(f"{place}: {where + ': ' if where else ''}{reason}") from error


def read_rules(connection: Connection) -> list[tuple[RuleSetting, str]]:
    """Every setting with its description (empty for overrides)."""
    with connection.cursor() as cursor:
        cursor.execute(_LIST)
        rows = cursor.fetchall()
    connection.commit()
    names = ("rule", "tenant", "project", "metric", *_COLUMNS, "parameters")
    return [(RuleSetting.model_construct(**dict(zip(names, row, strict=False))), row[-1] or "") for row in rows]


def write_rules(connection: Connection, settings: Iterable[RuleSetting]) -> int:
    """Store settings in one transaction; columns that are None stay as they are. Incidents of what is now disabled are closed. Returns
    how many rows changed."""
    try:
        changed = store_rules(connection, settings)
    except RulesError:
        connection.rollback()
        raise
    connection.commit()
    return changed


def store_rules(connection: Connection, settings: Iterable[RuleSetting]) -> int:
    """As write_rules, inside the caller's transaction.

    Raises:
        RulesError: together with what is set already they mean nothing: roll back.
    """
    changed = 0
    with connection.cursor() as cursor:
        for item in settings:
            values = item.model_dump() | {"parameters": Json(item.parameters, dumps=_dumps)}
            cursor.execute(_REMOVE if item.remove else _SET if item.is_override else _SET_DEFAULT, values)
            changed += cursor.rowcount
        _check_limits(connection)
        cursor.execute(_CLOSE_DISABLED)
    return changed


def unknown_scopes(connection: Connection, settings: Iterable[RuleSetting]) -> list[str]:
    """Of settings for a tenant or project that has sent nothing yet: that it is unknown, and which ones are known."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT tenant_id, project_id FROM project ORDER BY 1, 2")
        known: dict[str, list[str]] = {}
        for tenant, project in cursor.fetchall():
            known.setdefault(tenant, []).append(project)
    connection.commit()
    found = []
    for item in settings:
        if item.tenant and item.tenant not in known:
            found.append(f"there is no tenant {item.tenant!r} yet; there are: {_some(known)}")
        elif item.project and item.project not in known[item.tenant]:
            found.append(f"tenant {item.tenant} has no project {item.project!r} yet; it has: {_some(known[item.tenant])}")
    return list(dict.fromkeys(found))


def _some(names: Collection[str]) -> str:
    return ", ".join(list(names)[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "") or "none"


def _check_limits(connection: Connection) -> None:
    """Limits may come from several settings: together they must leave something."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT metric FROM quality_rule WHERE rule = 'range'"
            " AND (parameters ->> 'min')::float8 > (parameters ->> 'max')::float8 LIMIT 1"
        )
        if row := cursor.fetchone():
            raise RulesError(f"range of metric {row[0]}: min would be greater than max; nothing was changed")


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
