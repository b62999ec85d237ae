"""Dynamic partition sets, and the purge of Dagster's history, on an instance in memory."""

from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from iot_platform.orchestration.dynamic_partitions import KAFKA_PARTITION, PROJECT, TENANT, ProjectKeys, sync_kafka_partitions
from iot_platform.orchestration.run_history import purge_runs


@pytest.fixture
def instance() -> dg.DagsterInstance:
    return dg.DagsterInstance.ephemeral()


@pytest.mark.parametrize("before", [[], ["0", "1"], ["2", "0"], ["0", "1", "2", "3", "4"], ["0", "x"]])
def test_kafka_partitions_follow_the_topic_in_numeric_order(instance: dg.DagsterInstance, before: list[str]) -> None:
    instance.add_dynamic_partitions(KAFKA_PARTITION, before)
    sync_kafka_partitions(instance, range(12))
    assert list(instance.get_dynamic_partitions(KAFKA_PARTITION)) == [str(number) for number in range(12)]


def test_projects_are_added_once_with_their_tenants(instance: dg.DagsterInstance) -> None:
    keys = ProjectKeys(instance)
    assert keys.add([("t", "p"), ("t", "q")]) == [("t", "p"), ("t", "q")]
    assert ProjectKeys(instance).add([("t", "q"), ("t", "r")]) == [("t", "r")]
    assert list(instance.get_dynamic_partitions(TENANT)) == ["t"]
    assert list(instance.get_dynamic_partitions(PROJECT)) == ["t/p", "t/q", "t/r"]


partitions = dg.DynamicPartitionsDefinition(name=PROJECT)


@dg.op
def tell(context: dg.OpExecutionContext) -> None:
    """Materializes the partitions that the run's tag names."""
    for key in filter(None, context.run_tags["reported"].split(",")):
        context.log_event(dg.AssetMaterialization("project", partition=key))


@dg.job
def drain() -> None:
    tell()


def test_purge_keeps_what_the_ui_shows(instance: dg.DagsterInstance) -> None:
    """Runs with the last materialization of a quiet project survive; the newest drains too."""
    runs = [
        drain.execute_in_process(instance=instance, tags={"reported": reported}).run_id
        for reported in ["quiet,busy", "busy", "", "busy", *["busy"] * 20]
    ]
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    purged = purge_runs(instance, older_than_days=0, now=tomorrow)
    left = {run.run_id for run in instance.get_runs()}
    assert left == {runs[0], *runs[-20:]}
    assert purged.deleted == 3
    assert instance.get_materialized_partitions(dg.AssetKey("project")) == {"quiet", "busy"}


def test_purge_leaves_young_runs_alone(instance: dg.DagsterInstance) -> None:
    drain.execute_in_process(instance=instance, tags={"reported": ""})
    assert purge_runs(instance, older_than_days=1).deleted == 0
