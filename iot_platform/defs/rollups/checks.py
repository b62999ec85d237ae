"""The claim about the rollups."""

import dagster as dg

from iot_platform.orchestration.rollup_run import CHECK, HOURS, evaluate_rollups
from iot_platform.resources.platform import PlatformResource


@dg.asset_check(asset=HOURS, name=CHECK)
def rollup_equals_measurement(platform: PlatformResource) -> dg.AssetCheckResult:
    """Recent hours and random older days of some series, and the days they belong to, equal what measurement gives when computed anew."""
    return evaluate_rollups(platform.settings())
