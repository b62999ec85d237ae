"""What the panels ask: the database by SQL (files of named queries, and the query type that the vendor's SDK lacks for PostgreSQL), or
Prometheus by PromQL."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from grafana_foundation_sdk.builders import prometheus as builders
from grafana_foundation_sdk.cog import builder, variants
from grafana_foundation_sdk.models import prometheus
from grafana_foundation_sdk.models.dashboard import DataSourceRef

SOURCE: Final = DataSourceRef(type_val="grafana-postgresql-datasource", uid="iot-timescaledb")
PROMETHEUS: Final = DataSourceRef(type_val="prometheus", uid="iot-prometheus")
_FOLDER: Final = Path(__file__).parent / "sql"
_NAME: Final = re.compile(r"^-- name: (\w+)$", re.MULTILINE)

Format = Literal["time_series", "table"]


def load(dashboard: str) -> dict[str, str]:
    """The queries of sql/<dashboard>.sql by their names.

    Raises:
        ValueError: a name is used twice.
    """
    _, *parts = _NAME.split((_FOLDER / f"{dashboard}.sql").read_text("utf-8"))
    found: dict[str, str] = {}
    for name, text in zip(parts[::2], parts[1::2], strict=True):
        if name in found:
            raise ValueError(f"sql/{dashboard}.sql has two queries named {name}")
        found[name] = text.strip()
    return found


@dataclass
class Query(variants.Dataquery):
    """One query of a panel, as Grafana's PostgreSQL data source stores it."""

    sql: str
    format: Format
    ref_id: str = "A"

    def to_json(self) -> dict[str, Any]:
        """What the SDK's encoder writes."""
        return {
            "datasource": SOURCE.to_json(),
            "editorMode": "code",
            "format": self.format,
            "rawQuery": True,
            "rawSql": self.sql,
            "refId": self.ref_id,
        }


class Target(builder.Builder[variants.Dataquery]):
    """The query as the SDK's panel builders take it."""

    def __init__(self, query: Query) -> None:
        self._query = query

    def build(self) -> variants.Dataquery:
        """See Query."""
        return self._query


@dataclass(frozen=True)
class PromQL:
    """One query to Prometheus. `legend`: the name of its line, figure or column; {{label}} stands for a label's value."""

    expr: str
    legend: str


Ask = str | Sequence[PromQL]
"""What a panel asks: the database by SQL, or Prometheus."""
Targets = Sequence[builder.Builder[variants.Dataquery]]


def sent(ask: Ask, format_: Format, *, instant: bool) -> tuple[DataSourceRef, Targets]:
    """The data source, and the queries as the SDK's panel builders take them. `instant`: of PromQL, the values at the range's end only."""
    if isinstance(ask, str):
        return SOURCE, [Target(Query(ask, format_))]
    made: list[builder.Builder[variants.Dataquery]] = []
    for letter, query in zip("ABCDEFGHIJKLMNOPQRSTUVWXYZ", ask, strict=False):
        one = builders.Dataquery().expr(query.expr).legend_format(query.legend).ref_id(letter).datasource(PROMETHEUS)
        one = one.format(prometheus.PromQueryFormat(format_)).editor_mode(prometheus.QueryEditorMode.CODE)
        made.append(one.instant() if instant else one.range())
    return PROMETHEUS, made
