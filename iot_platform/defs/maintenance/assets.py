"""What keeps the database small, and safe: retention removes what policies do not keep, compression shrinks old chunks; backups."""

from datetime import timedelta

import dagster as dg

from iot_platform.orchestration import backup_run
from iot_platform.orchestration.compression_run import compress_chunks
from iot_platform.orchestration.retention_run import ASSET, CHECK, materialize_retention
from iot_platform.resources.platform import PlatformResource

GROUP = "maintenance"
POOL = "maintenance"


@dg.asset(
    name=ASSET,
    group_name=GROUP,
    kinds={"timescaledb"},
    pool=POOL,
    deps=[dg.AssetDep(name, partition_mapping=dg.AllPartitionMapping()) for name in ("message", "quarantine")]
    + ["measurement_1d"],  # which comes from measurement_1h, and that from measurement: nothing goes that they lack
    check_specs=[dg.AssetCheckSpec(CHECK, asset=ASSET, description="Everything that is beyond its policy may go; else the reasons.")],
    freshness_policy=dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=50), warn_window=timedelta(hours=26)),
)
def retention_removed(context: dg.AssetExecutionContext, platform: PlatformResource) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """What retention removed: chunks and rows older than the policies keep (`iot retention show`). Nothing goes that is not completely
    rolled up, or that the audit cannot account for."""
    return materialize_retention(platform.settings())


@dg.asset(
    group_name=GROUP,
    kinds={"timescaledb"},
    pool="compression",  # a backlog takes hours, and rollups need not wait for it
    deps=[dg.AssetDep(name, partition_mapping=dg.AllPartitionMapping()) for name in ("message", "measurement")],
    freshness_policy=dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=50), warn_window=timedelta(hours=26)),
)
def compressed_chunk(context: dg.AssetExecutionContext, platform: PlatformResource) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """Compressions of old chunks of message, measurement and ledger (Community edition): one row is one compression. Materialized, it
    compresses every chunk that is due, one transaction each. In the Apache edition it changes nothing and says what is missing."""
    return compress_chunks(context, platform.settings())


@dg.asset(
    name=backup_run.ASSET,
    group_name=GROUP,
    kinds={"postgres"},
    pool="backup",
    deps=[dg.AssetDep(name, partition_mapping=dg.AllPartitionMapping()) for name in ("message", "measurement", "quarantine")],
)
def database_backup(context: dg.AssetExecutionContext, platform: PlatformResource) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """Backups of the whole database (`iot backup list`): one row is one backup. Materialized, it makes a differential one, or a full one
    where the last is IOT_BACKUP_FULL_DAYS old, and removes what is older than IOT_BACKUP_KEEP_DAYS. The WAL between them is archived by
    PostgreSQL itself."""
    return backup_run.back_up(platform.settings())


@dg.asset(
    name=backup_run.DRILL_ASSET,
    group_name=GROUP,
    kinds={"postgres"},
    pool="backup",
    deps=[backup_run.ASSET],
    check_specs=[
        dg.AssetCheckSpec(
            backup_run.DRILL_CHECK,
            asset=backup_run.DRILL_ASSET,
            description="The last drill restored the newest backup and the WAL behind it, and found in it what has to be there.",
        )
    ],
)
def backup_drill(context: dg.AssetExecutionContext, platform: PlatformResource) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """Restores for practice (`iot backup drill`): one row is one drill. Materialized, the newest backup is restored into an empty server
    that cannot reach the archive but to read, examined, and removed."""
    return backup_run.practise(platform.settings())
