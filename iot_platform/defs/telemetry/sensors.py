"""The sensor that keeps drain shifts going."""

import dagster as dg

from iot_platform.defs.telemetry.jobs import drain
from iot_platform.resources.lag_watch import watch
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
