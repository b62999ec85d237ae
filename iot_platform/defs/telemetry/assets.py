"""The tables that a drain fills, by Kafka partition; and tenants and projects, the same rows by tenant and project."""

from collections.abc import Iterator

import dagster as dg

from iot_platform.defs.partitions import kafka_partitions, project_partitions, tenant_partitions
from iot_platform.orchestration.drain_run import run_drain
from iot_platform.orchestration.summaries import add_project_metadata, add_tenant_metadata
from iot_platform.resources.platform import PlatformResource

GROUP = "telemetry"
_TABLES = {
    "message": "Raw messages: one row is one Kafka record, payload bytes unchanged. A Kafka offset is here or in quarantine, exactly once.",
    "measurement": "Measurements: one row is one value of one series (tenant, project, device, metric) at one time.",
    "quarantine": "Messages kept whole, with the reason, because they do not fit the message contract.",
}
_EVERY_PARTITION = dg.AllPartitionMapping()


@dg.multi_asset(
    name="drain_kafka",
    specs=[
        dg.AssetSpec(name, deps=["iot_messages"], group_name=GROUP, kinds={"timescaledb"}, description=text, skippable=True)
        for name, text in _TABLES.items()
    ],
    partitions_def=kafka_partitions,
    backfill_policy=dg.BackfillPolicy.single_run(),
    can_subset=True,
)
def drained_tables(context: dg.AssetExecutionContext, platform: PlatformResource) -> Iterator[dg.MaterializeResult]:  # type: ignore[type-arg]
    """Drain the run's Kafka partitions: as a shift when the sensor asked for one, else until they are caught up. All three tables are
    written in one transaction, so a run drains them together whichever was selected. A shift reports what it touched while it runs, and
    yields nothing at its end."""
    yield from run_drain(context, platform.settings())


@dg.asset(
    group_name=GROUP,
    kinds={"timescaledb"},
    partitions_def=project_partitions,
    backfill_policy=dg.BackfillPolicy.single_run(),
    deps=[dg.AssetDep(name, partition_mapping=_EVERY_PARTITION) for name in _TABLES],
)
def project(context: dg.AssetExecutionContext, platform: PlatformResource) -> None:
    """Projects of tenants, named tenant/project. A project appears by itself with its first message, and is materialized while its messages
    are drained; materialized by hand it shows its sums since the beginning."""
    add_project_metadata(context, platform.settings())


@dg.asset(
    group_name=GROUP,
    kinds={"timescaledb"},
    partitions_def=tenant_partitions,
    backfill_policy=dg.BackfillPolicy.single_run(),
    deps=[dg.AssetDep("project", partition_mapping=_EVERY_PARTITION)],
)
def tenant(context: dg.AssetExecutionContext, platform: PlatformResource) -> None:
    """Tenants: the sums of their projects. Appear and are materialized like projects."""
    add_tenant_metadata(context, platform.settings())
