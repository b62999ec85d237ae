"""The sensor that keeps shifts for each InfluxDB going."""

import dagster as dg

from iot_platform.defs.influx.jobs import follow_influx
from iot_platform.orchestration.influx_run import watch
from iot_platform.resources.platform import PlatformResource


@dg.sensor(
    job=follow_influx,
    minimum_interval_seconds=5,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Requests a shift for each InfluxDB of IOT_INFLUX_URL that lacks what is committed. While that is not set it requests "
    "nothing, and says so.",
)
def influx_lag(context: dg.SensorEvaluationContext, platform: PlatformResource) -> dg.SensorResult | dg.SkipReason:
    """One look."""
    return watch(platform.settings(), context.instance)
