"""Retention: the asset that removes what policies do not keep, the check that tells why something stays, and when it runs."""

from datetime import timedelta

import dagster as dg

from iot_platform.resources.platform import PlatformResource
from iot_platform.resources.retention_run import ASSET, CHECK, materialize_retention

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


remove_old_rows = dg.define_asset_job(
    "remove_old_rows",
    selection=dg.AssetSelection.assets(ASSET),
    tags={"dagster/max_runtime": "7200"},
    description="Removes what is older than the retention policies keep, as `iot retention run` does.",
)

# Shortly after midnight (UTC) most of what is beyond its policy lies in whole chunks, and little is deleted row by row.
remove_old_rows_schedule = dg.ScheduleDefinition(
    name="remove_old_rows_daily",
    job=remove_old_rows,
    cron_schedule="37 1 * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)

ASSETS = [retention_removed]
JOBS = [remove_old_rows]
SCHEDULES = [remove_old_rows_schedule]
