"""Materializations during a drain: new keys at once, busy ones rarely, never more than the budget, and a broken storage harms nothing."""

from dataclasses import dataclass, field

import dagster as dg
import numpy as np
import pytest
from sqlalchemy.exc import OperationalError

from iot_platform.orchestration import materializations
from iot_platform.orchestration.dynamic_partitions import PROJECT, TENANT, ProjectKeys
from iot_platform.orchestration.materializations import INTERVAL_SECONDS, RETRY_SECONDS, Reporter
from iot_platform.telemetry.drain.progress import PartitionProgress, Progress, ProjectProgress


@dataclass
class Sink:
    """Collects events; each costs `cost` seconds of its clock."""

    now: float = 0.0
    cost: float = 0.0
    broken: bool = False
    events: list[dg.AssetMaterialization] = field(default_factory=list)

    def emit(self, event: dg.AssetMaterialization) -> None:
        if self.broken:
            raise OperationalError("insert", {}, Exception("server closed the connection"))
        self.now += self.cost
        self.events.append(event)

    def take(self) -> list[tuple[str, str | None]]:
        taken = [(event.asset_key.to_user_string(), event.partition) for event in self.events]
        self.events.clear()
        return taken


@pytest.fixture
def instance() -> dg.DagsterInstance:
    return dg.DagsterInstance.ephemeral()


@pytest.fixture
def sink() -> Sink:
    return Sink()


@pytest.fixture
def reporter(instance: dg.DagsterInstance, sink: Sink) -> Reporter:
    return Reporter(emit=sink.emit, keys=ProjectKeys(instance), clock=lambda: sink.now)


def progress(partitions: dict[int, PartitionProgress], projects: dict[tuple[str, str], int]) -> Progress:
    """Everything in it has changed."""
    made = {
        key: ProjectProgress(messages=count, tenant=key[0], project=key[1], offsets={0: (0, count - 1)}) for key, count in projects.items()
    }
    return Progress(partitions=partitions, projects=made, changed_partitions=set(partitions), changed_projects=set(made))


def test_a_new_project_is_told_at_once_and_has_its_keys_before(reporter: Reporter, sink: Sink, instance: dg.DagsterInstance) -> None:
    reporter.update(progress({0: PartitionProgress(messages=1, measurements=1)}, {("t", "p"): 1}))
    assert sorted(sink.take()) == [("measurement", "0"), ("message", "0"), ("project", "t/p"), ("tenant", "t")]
    assert list(instance.get_dynamic_partitions(PROJECT)) == ["t/p"]
    assert list(instance.get_dynamic_partitions(TENANT)) == ["t"]


def test_a_busy_project_is_told_rarely_and_at_the_end(reporter: Reporter, sink: Sink) -> None:
    for second in range(int(INTERVAL_SECONDS) - 1):
        sink.now = float(second)
        reporter.update(progress({}, {("t", "p"): second + 1}))
    assert len(sink.take()) == 2
    assert reporter.finish() == 0
    assert sorted(sink.take()) == [("project", "t/p"), ("tenant", "t")]


def test_only_touched_tables_are_told(reporter: Reporter, sink: Sink) -> None:
    for second in range(0, 300, 10):
        sink.now = float(second)
        reporter.update(progress({0: PartitionProgress(quarantined=3)}, {}))
    assert sink.take() == [("quarantine", "0")]


def test_thousands_of_projects_never_hold_the_drain_up(reporter: Reporter, sink: Sink) -> None:
    sink.cost = 0.01
    many = progress({}, {("t", f"p{i}"): 1 for i in range(3000)})
    before = sink.now
    reporter.update(many)
    assert sink.now - before <= materializations.BUDGET_SECONDS + sink.cost
    many.changed_projects.clear()
    for _ in range(200):
        reporter.update(many)
    assert len({item for item in sink.take() if item[0] == "project"}) == 3000


def test_a_tenant_sums_its_projects(reporter: Reporter, sink: Sink) -> None:
    reporter.update(progress({}, {("t", "p"): 3, ("t", "q"): 4, ("u", "p"): 5}))
    tenants = {event.partition: event.metadata["messages"].value for event in sink.events if event.asset_key.to_user_string() == "tenant"}
    assert tenants == {"t": 7, "u": 5}


def test_metadata_names_counts_offsets_and_times(reporter: Reporter, sink: Sink) -> None:
    partition = PartitionProgress(messages=7, from_offset=10, to_offset=17, last_received_at=1_700_000_000_000_000)
    partition.note_freshness(np.full(7, 300_000))
    reporter.update(progress({3: partition}, {}))
    metadata = {key: value.value for key, value in sink.events[0].metadata.items()}
    assert metadata["messages"] == 7
    assert metadata["kafka_offsets"] == "3: 10…16"
    assert metadata["freshness_p50_seconds"] == pytest.approx(0.3, rel=0.1)
    assert metadata["last_received"] == pytest.approx(1_700_000_000)


def test_broken_storage_is_waited_for(reporter: Reporter, sink: Sink) -> None:
    sink.broken = True
    reporter.update(progress({}, {("t", "p"): 1}))
    sink.broken = False
    reporter.update(progress({}, {("t", "p"): 2}))
    assert sink.take() == []
    sink.now += RETRY_SECONDS
    reporter.update(progress({}, {("t", "p"): 2}))
    assert sorted(sink.take()) == [("project", "t/p"), ("tenant", "t")]


def test_records_that_name_no_project_have_no_partition(reporter: Reporter, sink: Sink) -> None:
    reporter.update(progress({}, {("", ""): 4}))
    assert sink.take() == []
