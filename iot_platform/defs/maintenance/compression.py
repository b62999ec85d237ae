"""Compression of old chunks: the table of what was compressed, and the claims about it."""

from datetime import timedelta

import dagster as dg

from iot_platform.resources.compression import ASSET, COMPRESSED, DISK, compress_chunks, evaluate_compressed, evaluate_disk
from iot_platform.resources.platform import PlatformResource


@dg.asset(
    group_name="maintenance",
    kinds={"timescaledb"},
    pool="compression",  # a backlog takes hours, and rollups need not wait for it
    deps=[dg.AssetDep(name, partition_mapping=dg.AllPartitionMapping()) for name in ("message", "measurement")],
    freshness_policy=dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=50), warn_window=timedelta(hours=26)),
)
def compressed_chunk(context: dg.AssetExecutionContext, platform: PlatformResource) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """Compressions of old chunks of message, measurement and ledger (Community edition): one row is one compression. Materialized, it
    compresses every chunk that is due, one transaction each. In the Apache edition it changes nothing and says what is missing."""
    return compress_chunks(context, platform.settings())


@dg.asset_check(asset=ASSET, name=COMPRESSED)
def old_chunks_are_compressed(platform: PlatformResource) -> dg.AssetCheckResult:
    """No chunk is older than its table's policy and uncompressed, or swollen by late rows. A warning in the Apache edition, which has no
    compression: with what that costs a day, and how to switch."""
    return evaluate_compressed(platform.settings())


@dg.asset_check(asset=ASSET, name=DISK)
def disk_is_sufficient(platform: PlatformResource) -> dg.AssetCheckResult:
    """The database stays below IOT_DISK_LIMIT_BYTES (local stack: the free disk) for 30 days or more, at the rate of the last week, with
    retention and compression as they are set. Passes with a note while no limit is known."""
    return evaluate_disk(platform.settings())


compress_old_chunks = dg.define_asset_job(
    "compress_old_chunks",
    selection=dg.AssetSelection.assets(ASSET),
    description="Compresses old chunks and looks ahead at the disk. Safe to repeat, and to stop at any point.",
)

compress_old_chunks_schedule = dg.ScheduleDefinition(
    name="compress_old_chunks_daily",
    job=compress_old_chunks,
    cron_schedule="43 2 * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)

ASSETS = [compressed_chunk]
CHECKS = [old_chunks_are_compressed, disk_is_sufficient]
JOBS = [compress_old_chunks]
SCHEDULES = [compress_old_chunks_schedule]
