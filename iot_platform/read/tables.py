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
    """A view of schema `tenant` as a frame. `columns`: name → polars type and SQL. `time`: the column that a range is about, which is read
    in pieces; `span`: the condition of a range that is read at once; neither: there is no range. `order`: how the rows of one frame are
    sorted."""

    name: str
    view: str
    columns: Mapping[str, tuple[Any, str]]
    order: tuple[str, ...]
    time: str | None = "time"
    span: str | None = None

    @property
    def ranged(self) -> bool:
        """Whether a question names a range."""
        return self.time is not None or self.span is not None

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
    "incident",
    {
        "incident_id": (pl.Int64, "incident_id"),
        "rule": (pl.String, "rule"),
        "severity": (pl.String, "severity"),
        **_NAMES,
        "opened_at": (TIME, "opened_at"),
        "last_seen_at": (TIME, "last_seen_at"),
        "closed_at": (TIME, "closed_at"),
        "flaps": (pl.Int32, "flaps"),
        "message": (pl.String, "message"),
        "silenced_until": (TIME, "silenced_until"),
        "silence_reason": (pl.String, "silence_reason"),
        "acknowledged_at": (TIME, "acknowledged_at"),
        "acknowledged_by": (pl.String, "acknowledged_by"),
        "kafka_partition": (pl.Int32, "kafka_partition"),
        "kafka_offset": (pl.Int64, "kafka_offset"),
    },
    ("opened_at", "incident_id"),
    time=None,
    span="opened_at < %(end)s::timestamptz AND coalesce(closed_at, 'infinity') >= %(start)s::timestamptz",
)
