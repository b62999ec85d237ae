"""What can be read: for each frame its columns, their types, and the expressions of schema `tenant` that they come from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import polars as pl

TIME: Final = pl.Datetime("us", "UTC")
_NAMES: Final = {"project_id": (pl.String, "project_id"), "device_id": (pl.String, "device_id"), "metric": (pl.String, "metric")}
_FIGURES: Final = ("value_min", "value_max", "value_avg", "value_first", "value_last")


@dataclass(frozen=True)
class Table:
    """A view of schema `tenant` as a frame. `columns`: name → polars type and SQL. `time`: the column of SQL that a range of time is about;
    None: there is no range. `order`: how the rows of one frame are sorted. `distinct`: of rows that agree in it, the newest by `time`."""

    name: str
    view: str
    columns: Mapping[str, tuple[Any, str]]
    order: tuple[str, ...]
    time: str | None = "time"
    distinct: str | None = None

    @property
    def schema(self) -> dict[str, Any]:
        """Name → polars type."""
        return {name: kind for name, (kind, _) in self.columns.items()}


_VALUE: Final = {
    "value": (pl.Float64, "value"),
    "value_int": (pl.Int64, "value_int"),
    "value_text": (pl.String, "value_text"),
    "unit": (pl.String, "unit"),
    "flags": (pl.Int16, "flags"),
}
_SERIES_ORDER: Final = ("project_id", "device_id", "metric")

MEASUREMENTS: Final = Table("measurements", "measurement", {"time": (TIME, "time"), **_NAMES, **_VALUE}, (*_SERIES_ORDER, "time"))
LATEST: Final = Table("latest", "latest", {"time": (TIME, "time"), **_NAMES, **_VALUE}, _SERIES_ORDER, time=None)


def _rollups(view: str) -> Table:
    figures = {name: (pl.Float64, name) for name in ("value_min", "value_max", "value_sum", "value_avg", "value_first", "value_last")}
    counts = {name: (pl.Int64, name) for name in ("value_count", "numbers")}
    columns = {"bucket": (TIME, "bucket"), **_NAMES, **counts, **figures, "unit": (pl.String, "unit")}
    return Table(view, view, columns, (*_SERIES_ORDER, "bucket"), time="bucket")


ROLLUPS: Final = {"1h": _rollups("measurement_1h"), "1d": _rollups("measurement_1d")}


def _history(view: str, time: str, count: str, figures: Mapping[str, str]) -> Table:
    columns = {
        "time": (TIME, time),
        **_NAMES,
        "value_count": (pl.Int64, count),
        **{name: (pl.Float64, figures[name]) for name in _FIGURES},
        "unit": (pl.String, "unit"),
    }
    return Table("history", view, columns, (*_SERIES_ORDER, "time"), time=time)


HISTORY: Final = {
    "raw": _history("measurement", "time", "1", dict.fromkeys(_FIGURES, "value")),
    "1h": _history("measurement_1h", "bucket", "value_count", {name: name for name in _FIGURES}),
    "1d": _history("measurement_1d", "bucket", "value_count", {name: name for name in _FIGURES}),
}
"""The same columns at each resolution; a measurement is minimum, maximum and average of itself."""

INCIDENTS: Final = Table(
    "incidents",
    "quality",
    {
        "incident_id": (pl.Int64, "incident_id"),
        "rule": (pl.String, "rule"),
        **_NAMES,
        "opened_at": (TIME, "opened_at"),
        "closed_at": (TIME, "closed_at"),
        "flaps": (pl.Int32, "flaps"),
        "told_at": (TIME, "evaluated_at"),
        "status": (pl.String, "status"),
        "message": (pl.String, "message"),
        "value": (pl.Float64, "value"),
        "threshold": (pl.Float64, "threshold"),
        "example": (pl.String, "example::text"),
        "kafka_partition": (pl.Int32, "kafka_partition"),
        "kafka_offset": (pl.Int64, "kafka_offset"),
    },
    ("opened_at", "incident_id"),
    time="evaluated_at",
    distinct="incident_id",
)
