"""Turns a drain's figures into Dagster materializations while it runs: new keys at once, busy ones rarely, within a time budget."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import dagster as dg

from iot_platform.orchestration.dynamic_partitions import ProjectKeys
from iot_platform.orchestration.event_throttle import EventThrottle
from iot_platform.orchestration.partition_keys import project_key, tenant_key
from iot_platform.telemetry.counters import COUNTERS
from iot_platform.telemetry.sums import Figures

if TYPE_CHECKING:
    from iot_platform.telemetry.drain.progress import PartitionProgress, Progress, ProjectProgress

log = logging.getLogger(__name__)

INTERVAL_SECONDS: Final = 45.0
BUDGET_SECONDS: Final = 0.25
"""Most time for events in one call, about 80 of them: with calls every second a drain spends at most a fifth of its main thread here."""
FINAL_BUDGET_SECONDS: Final = 20.0
RETRY_SECONDS: Final = 5.0

Key = tuple[str, str | int | tuple[str, str]]
Metadata = dict[str, dg.MetadataValue | str | int | float | bool]


def storage_errors() -> tuple[type[Exception], ...]:
    """What Dagster raises when its storage is away: the drain goes on, and the events are written later."""
    # Half of what a code server imports, which a run needs, but not those that only list the definitions.
    from dagster_postgres.utils import DagsterPostgresException
    from sqlalchemy.exc import SQLAlchemyError

    return (SQLAlchemyError, DagsterPostgresException, dg.DagsterError)


def figures_metadata(figures: Figures, prefix: str = "") -> Metadata:
    """Row counts, Kafka offset ranges and last receive time, as the UI shows them."""
    metadata: Metadata = {f"{prefix}{name}": getattr(figures, name) for name in COUNTERS}
    if figures.offsets:
        shown = sorted(figures.offsets.items())
        metadata[f"{prefix}kafka_offsets"] = ", ".join(f"{partition}: {first}…{last}" for partition, (first, last) in shown)
    if figures.last_received_at is not None:
        metadata[f"{prefix}last_received"] = dg.MetadataValue.timestamp(figures.last_received_at)
    return metadata


@dataclass
class Reporter:
    """Writes the events of one drain through `emit`. Used by one thread.

    A failing storage never reaches the drain: what could not be written stays pending, and a later run heals what was never written.
    """

    emit: Callable[[dg.AssetMaterialization], None]
    keys: ProjectKeys
    clock: Callable[[], float] = time.monotonic
    _partitions: Mapping[int, "PartitionProgress"] = field(default_factory=dict)
    _projects: Mapping[tuple[str, str], "ProjectProgress"] = field(default_factory=dict)
    _tenants: dict[str, set[str]] = field(default_factory=dict)
    _throttle: EventThrottle[Key] = field(default_factory=lambda: EventThrottle(INTERVAL_SECONDS))
    _counts: dict[Key, int] = field(default_factory=dict)
    _paused_until: float = 0.0

    def update(self, progress: "Progress") -> None:
        """Take the drain's cumulative figures and write the events that are due, for at most about BUDGET_SECONDS."""
        self.note(progress)
        if self.clock() >= self._paused_until:
            self._write(self._throttle.due(self.clock()), BUDGET_SECONDS)

    def note(self, progress: "Progress") -> None:
        """Take the drain's cumulative figures, and write nothing yet."""
        self._partitions, self._projects = progress.partitions, progress.projects
        for partition in progress.changed_partitions:
            figures = progress.partitions[partition]
            self._touch_if_more(("message", partition), figures.messages)
            self._touch_if_more(("measurement", partition), figures.measurements)
            self._touch_if_more(("quarantine", partition), figures.quarantined)
        for tenant, project in progress.changed_projects:
            if tenant and project:
                self._tenants.setdefault(tenant, set()).add(project)
                self._throttle.touch(("project", (tenant, project)))
                self._throttle.touch(("tenant", tenant))

    def finish(self) -> int:
        """Write everything pending, for at most about FINAL_BUDGET_SECONDS; returns how many events remain unwritten."""
        self._write(self._throttle.pending(), FINAL_BUDGET_SECONDS)
        return len(self._throttle.pending())

    def _touch_if_more(self, key: Key, count: int) -> None:
        if count > self._counts.get(key, 0):
            self._counts[key] = count
            self._throttle.touch(key)

    def _write(self, due: list[Key], budget: float) -> None:
        deadline = self.clock() + budget
        try:
            self.keys.add(item for _, item in due if isinstance(item, tuple))
            for key in due:
                event = self._event(key)
                if event is not None:
                    self.emit(event)
                self._throttle.written(key, self.clock())
                if self.clock() >= deadline:
                    return
        except storage_errors() as error:
            self._paused_until = self.clock() + RETRY_SECONDS
            log.warning("Dagster's storage does not take events; draining goes on, the events follow later: %s", error)

    def _event(self, key: Key) -> dg.AssetMaterialization | None:
        kind, item = key
        if isinstance(item, int):
            return dg.AssetMaterialization(kind, partition=str(item), metadata=partition_metadata(item, self._partitions[item]))
        if isinstance(item, tuple):
            return project_event(*item, project_figures_of(self._projects[item])) if self.keys.has(*item) else None
        total = Figures()
        for project in self._tenants[item]:
            total.widen(project_figures_of(self._projects[item, project]))
        return tenant_event(item, len(self._tenants[item]), total)


def project_event(tenant: str, project: str, figures: Figures, prefix: str = "") -> dg.AssetMaterialization:
    """The materialization of a project."""
    metadata = {**figures_metadata(figures, prefix), "tenant": tenant, "project": project}
    return dg.AssetMaterialization("project", partition=project_key(tenant, project), metadata=metadata)


def tenant_event(tenant: str, projects: int, figures: Figures, prefix: str = "") -> dg.AssetMaterialization:
    """The materialization of a tenant: `projects` is how many the figures sum."""
    metadata = {**figures_metadata(figures, prefix), "tenant": tenant, "projects": projects}
    return dg.AssetMaterialization("tenant", partition=tenant_key(tenant), metadata=metadata)


def partition_metadata(partition: int, progress: "PartitionProgress") -> Metadata:
    """What a drain did in a Kafka partition, with its freshness: seconds from reception by the ingest daemon to commit."""
    offsets = {partition: (progress.from_offset, progress.to_offset - 1)} if progress.to_offset > progress.from_offset else {}
    metadata = figures_metadata(_figures_of(progress, offsets))
    metadata["batches"] = progress.batches
    metadata |= {name: getattr(progress, name) for name in ("ambiguous_times", "skipped_times") if getattr(progress, name)}
    if progress.freshness_p50_seconds is not None and progress.freshness_p95_seconds is not None:
        metadata["freshness_p50_seconds"] = round(progress.freshness_p50_seconds, 3)
        metadata["freshness_p95_seconds"] = round(progress.freshness_p95_seconds, 3)
    return metadata


def project_figures_of(progress: "ProjectProgress") -> Figures:
    """A project's figures in a drain."""
    return _figures_of(progress, dict(progress.offsets))


def _figures_of(progress: "PartitionProgress | ProjectProgress", offsets: dict[int, tuple[int, int]]) -> Figures:
    micros = progress.last_received_at
    received_at = None if micros is None else datetime.fromtimestamp(micros / 1_000_000, tz=UTC)
    counts = {name: getattr(progress, name) for name in COUNTERS}
    return Figures(**counts, offsets=offsets, last_received_at=received_at)
