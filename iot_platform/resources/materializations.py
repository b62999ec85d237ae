"""Turns a drain's figures into Dagster materializations while it runs: new keys at once, busy ones rarely, within a time budget."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

import dagster as dg
from dagster_postgres.utils import DagsterPostgresException
from sqlalchemy.exc import SQLAlchemyError

from iot_platform.resources.accounting import Figures
from iot_platform.resources.dynamic import ProjectKeys
from iot_platform.resources.pacing import Pacer
from iot_platform.resources.partition_keys import project_key, tenant_key

log = logging.getLogger(__name__)

STORAGE_ERRORS: Final = (SQLAlchemyError, DagsterPostgresException, dg.DagsterError)
"""What Dagster raises when its storage is away: the drain goes on, and the events are written later."""
INTERVAL_SECONDS: Final = 45.0
BUDGET_SECONDS: Final = 0.25
"""Most time for events in one call, about 80 of them: with calls every second a drain spends at most a fifth of its main thread here."""
FINAL_BUDGET_SECONDS: Final = 20.0
RETRY_SECONDS: Final = 5.0

Key = tuple[str, str | int | tuple[str, str]]
Metadata = dict[str, dg.MetadataValue | str | int | float | bool]


@dataclass
class PartitionFigures(Figures):
    """Figures of a Kafka partition, and how old its messages were when they were committed."""

    freshness_p50_seconds: float | None = None
    freshness_p95_seconds: float | None = None


def figures_metadata(figures: Figures, prefix: str = "") -> Metadata:
    """Row counts, Kafka offset ranges and last receive time, as the UI shows them."""
    metadata: Metadata = {
        f"{prefix}messages": figures.messages,
        f"{prefix}measurements": figures.measurements,
        f"{prefix}quarantined": figures.quarantined,
        f"{prefix}duplicates": figures.duplicates,
        f"{prefix}measurement_duplicates": figures.measurement_duplicates,
        f"{prefix}measurement_conflicts": figures.measurement_conflicts,
    }
    if figures.offsets:
        shown = sorted(figures.offsets.items())
        metadata[f"{prefix}kafka_offsets"] = ", ".join(f"{partition}: {first}…{last}" for partition, (first, last) in shown)
    if figures.last_received_at is not None:
        metadata[f"{prefix}last_received"] = dg.MetadataValue.timestamp(figures.last_received_at)
    return metadata


@dataclass
class Reporter:
    """Writes the events of one drain run through `emit`. Used by one thread.

    A failing storage never reaches the drain: what could not be written stays pending, and the next shift heals what was never written.
    """

    emit: Callable[[dg.AssetMaterialization], None]
    keys: ProjectKeys
    clock: Callable[[], float] = time.monotonic
    partitions: Mapping[int, PartitionFigures] = field(default_factory=dict)
    projects: Mapping[tuple[str, str], Figures] = field(default_factory=dict)
    _tenants: dict[str, Figures] = field(default_factory=dict)
    _pacer: Pacer[Key] = field(default_factory=lambda: Pacer(INTERVAL_SECONDS))
    _counts: dict[Key, tuple[int, ...]] = field(default_factory=dict)
    _paused_until: float = 0.0
    _unkeyed: int = 0

    def update(self, partitions: Mapping[int, PartitionFigures], projects: Mapping[tuple[str, str], Figures]) -> None:
        """Take the run's cumulative figures and write the events that are due, for at most about BUDGET_SECONDS."""
        self.partitions, self.projects = partitions, projects
        self._note_changes()
        if self.clock() >= self._paused_until:
            self._write(self._pacer.due(self.clock()), BUDGET_SECONDS)

    def finish(self) -> int:
        """Write everything pending, for at most about FINAL_BUDGET_SECONDS; returns how many events remain unwritten."""
        self._write(self._pacer.pending(), FINAL_BUDGET_SECONDS)
        return len(self._pacer.pending())

    def _note_changes(self) -> None:
        for partition, figures in self.partitions.items():
            self._touch_if_changed(("message", partition), (figures.messages,))
            self._touch_if_changed(
                ("measurement", partition), (figures.measurements, figures.measurement_duplicates, figures.measurement_conflicts)
            )
            self._touch_if_changed(("quarantine", partition), (figures.quarantined,))
        changed_tenants = set()
        for (tenant, project), figures in self.projects.items():
            if (
                tenant
                and project
                and self._touch_if_changed(("project", (tenant, project)), (figures.messages, figures.quarantined, figures.duplicates))
            ):
                changed_tenants.add(tenant)
                self._pacer.touch(("tenant", tenant))
        if changed_tenants:
            totals = {tenant: Figures() for tenant in changed_tenants}
            for (tenant, _), figures in self.projects.items():
                if tenant in totals:
                    totals[tenant].add(figures)
            self._tenants.update(totals)

    def _touch_if_changed(self, key: Key, counts: tuple[int, ...]) -> bool:
        changed = any(counts) and self._counts.get(key) != counts
        if changed:
            self._counts[key] = counts
            self._pacer.touch(key)
        return changed

    def _write(self, due: list[Key], budget: float) -> None:
        deadline = self.clock() + budget
        try:
            self.keys.add(item for kind, item in due if kind == "project" and isinstance(item, tuple))
            for key in due:
                event = self._event(key)
                if event is not None:
                    self.emit(event)
                self._pacer.told(key, self.clock())
                if self.clock() >= deadline:
                    return
        except STORAGE_ERRORS as error:
            self._paused_until = self.clock() + RETRY_SECONDS
            log.warning("Dagster's storage does not take events; draining goes on, the events follow later: %s", error)

    def _event(self, key: Key) -> dg.AssetMaterialization | None:
        kind, item = key
        if isinstance(item, int):
            return dg.AssetMaterialization(kind, partition=str(item), metadata=self._partition_metadata(self.partitions[item]))
        if isinstance(item, tuple):
            if not self.keys.has(*item):  # beyond MAX_KEYS: counted in the database, not shown here
                return None
            metadata = {**figures_metadata(self.projects[item]), "tenant": item[0], "project": item[1]}
            return dg.AssetMaterialization(kind, partition=project_key(*item), metadata=metadata)
        return dg.AssetMaterialization(kind, partition=tenant_key(item), metadata={**figures_metadata(self._tenants[item]), "tenant": item})

    @staticmethod
    def _partition_metadata(figures: PartitionFigures) -> Metadata:
        metadata = figures_metadata(figures)
        if figures.freshness_p50_seconds is not None:
            metadata["freshness_p50_seconds"] = round(figures.freshness_p50_seconds, 3)
        if figures.freshness_p95_seconds is not None:
            metadata["freshness_p95_seconds"] = round(figures.freshness_p95_seconds, 3)
        return metadata


def utc(micros: int | None) -> datetime | None:
    """A receive time in µs since the epoch as datetime."""
    return None if micros is None else datetime.fromtimestamp(micros / 1_000_000, tz=UTC)
