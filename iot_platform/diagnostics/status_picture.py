"""The figures of `iot status`, as every component told them."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Component:
    """One part of the platform; `state` is ok, starting, down or – (nothing to say)."""

    name: str
    state: str
    detail: str = ""


@dataclass
class Picture:
    """What was asked and answered; None is "unknown", because the component that knows it did not answer."""

    components: list[Component] = field(default_factory=list)
    messages_in_per_second: float | None = None
    messages_out_per_second: float | None = None
    measurements_out_per_second: float | None = None
    in_flight: int | None = None
    spool: int | None = None
    lag: dict[int, int] | None = None
    kafka_detail: str = ""
    freshness_p50_seconds: float | None = None
    freshness_p95_seconds: float | None = None
    quarantine_24h: dict[str, int] | None = None
    conflicts_24h: int | None = None
    conflicts_by_project_24h: list[dict[str, Any]] | None = None
    """The projects with most conflicts: tenant, project, conflicts and measurements (all that arrived)."""
    sinks: list[dict[str, Any]] | None = None
    """InfluxDB servers that IOT_INFLUX_URL names and that have begun: see influx.status.SinkStatus."""
    runs: list[dict[str, Any]] | None = None
    audit_differences: dict[str, int] | None = None
    """What the last audit of `iot metrics` on this machine found, by proof."""
    notices: list[str] = field(default_factory=list)
    """What the ingest daemons have to say although messages flow."""
    waits_for_person: bool = False
    """Whether a partition is not drained until somebody decides."""

    @property
    def healthy(self) -> bool:
        """Whether every component is well."""
        return all(component.state in ("ok", "–") for component in self.components)
