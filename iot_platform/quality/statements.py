"""The SQL of the quality rules: sql/quality/<rule>.sql, one statement each, and the stages around them in sql/quality/stage."""

from functools import cache
from typing import Final

from iot_platform.files import SQL

FOLDER: Final = SQL / "quality"
RULES: Final = (
    "freshness_device",
    "freshness_project",
    "completeness",
    "range",
    "rate_of_change",
    "stuck_value",
    "type_change",
    "clock_skew",
    "duplicate_rate",
    "conflict_rate",
    "quarantine_rate",
    "new_series_burst",
    "sequence_gap",
    "rollup_equals_source",
    "ledger_continuous",
    "kafka_log_cut",
)
"""In the order in which they are evaluated."""


@cache
def rule_sql(rule: str) -> str:
    """The statement of a rule; its parameters are those of evaluate."""
    return (FOLDER / f"{rule}.sql").read_text("utf-8")


@cache
def stage_sql(name: str) -> str:
    """A statement around the rules."""
    return (FOLDER / "stage" / f"{name}.sql").read_text("utf-8")
