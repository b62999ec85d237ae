"""The rollups, kept together by one run."""

from collections.abc import Iterator
from datetime import timedelta

import dagster as dg

from iot_platform.orchestration.rollup_run import DAYS, HOURS, run_rollups
from iot_platform.resources.platform import PlatformResource

_FRESH = dg.FreshnessPolicy.time_window(fail_window=timedelta(minutes=30), warn_window=timedelta(minutes=15))
_COLUMNS = "count, and of the numbers among them minimum, maximum, sum, average, first and last by time"


@dg.multi_asset(
    name="roll_up",
    specs=[
        dg.AssetSpec(
            HOURS,
            deps=["measurement"],
            group_name="rollups",
            kinds={"timescaledb"},
            freshness_policy=_FRESH,
            description=f"Hourly rollup: one row is one UTC hour of one series: {_COLUMNS}. Exact under late data; has the current hour.",
        ),
        dg.AssetSpec(
            DAYS,
            deps=[HOURS],
            group_name="rollups",
            kinds={"timescaledb"},
            freshness_policy=_FRESH,
            description=f"Daily rollup: one row is one day (UTC) of one series, from its hours: {_COLUMNS}.",
        ),
    ],
    can_subset=True,
    pool="maintenance",
)
def rolled_up_tables(context: dg.AssetExecutionContext, platform: PlatformResource) -> Iterator[dg.MaterializeResult]:  # type: ignore[type-arg]
    """Compute what changed since the last run, and store the hours and days that ended; for at most 4 minutes, the next run goes on."""
    yield from run_rollups(context, platform.settings())
