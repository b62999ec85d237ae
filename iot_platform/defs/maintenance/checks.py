"""The claims about compression; retention's check is its asset's own."""

import dagster as dg

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
