"""The claims about compression and backups; retention's check is its asset's own."""

import dagster as dg

from iot_platform.orchestration import backup_run
from iot_platform.orchestration.compression_run import ASSET, COMPRESSED, DISK, evaluate_compressed, evaluate_disk
from iot_platform.resources.platform import PlatformResource


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


@dg.asset_check(asset=backup_run.ASSET, name=backup_run.CHECK)
def wal_archive_is_complete(platform: PlatformResource) -> dg.AssetCheckResult:
    """The WAL since the oldest backup is in the repository without a hole on any timeline, and the server's archiving keeps up: any state
    since then can be restored. By the names of the segments; `iot backup verify` reads all files, too."""
    return backup_run.evaluate_archive(platform.settings())
