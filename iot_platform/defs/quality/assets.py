"""Findings of the quality rules, with one check per rule."""

from collections.abc import Iterator
from datetime import timedelta

import dagster as dg

from iot_platform.orchestration.quality_run import check_specs, run_quality
from iot_platform.resources.platform import PlatformResource

_EVERY_PARTITION = dg.AllPartitionMapping()


@dg.asset(
    group_name="quality",
    kinds={"timescaledb"},
    pool="quality",
    deps=[dg.AssetDep(name, partition_mapping=_EVERY_PARTITION) for name in ("message", "measurement", "quarantine")],
    check_specs=check_specs(),
    freshness_policy=dg.FreshnessPolicy.time_window(fail_window=timedelta(minutes=15), warn_window=timedelta(minutes=10)),
)
def quality_result(context: dg.AssetExecutionContext, platform: PlatformResource) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:  # type: ignore[type-arg]
    """Findings of the quality rules, per tenant and project: judges what was committed since the last evaluation. Late and replayed data is
    new data. Safe to run at any time, by hand too; incidents are in `iot quality` and the view quality_open."""
    yield from run_quality(context, platform.settings())
