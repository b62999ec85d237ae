"""The sensor that keeps drain shifts going, and the one that shows new projects."""

import dagster as dg

from iot_platform.defs.telemetry.jobs import drain
from iot_platform.orchestration.dynamic_partitions import MAX_KEYS, sync_projects
from iot_platform.orchestration.lag_watch import watch
from iot_platform.resources.platform import PlatformResource


@dg.sensor(
    job=drain,
    minimum_interval_seconds=1,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Waits for messages in Kafka that the database has not taken, and requests drain shifts: the first one at the first "
    "message, then a successor shortly before the running shift ends. After failures it waits longer and longer.",
)
def kafka_lag(context: dg.SensorEvaluationContext, platform: PlatformResource) -> dg.SensorResult | dg.SkipReason:
    """One tick: up to TICK_SECONDS of watching."""
    return watch(platform.settings(), context.instance)


@dg.sensor(
    asset_selection=dg.AssetSelection.assets("project", "tenant"),
    minimum_interval_seconds=55,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Adds projects and tenants that appeared in the database as partitions, whatever brought them there: a drain (which adds "
    "its own at once), `iot simulate --history`, a restored backup. Requests no runs.",
)
def new_projects(context: dg.SensorEvaluationContext, platform: PlatformResource) -> dg.SkipReason:
    """One tick: what is missing is added."""
    added, count = sync_projects(context.instance, platform.settings())
    shown = "" if count <= MAX_KEYS else f"; {MAX_KEYS:,} of them are shown"
    return dg.SkipReason(f"{len(added):,} projects added, {count:,} are known{shown}")
