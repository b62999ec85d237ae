"""When the drained tables are checked outside of shifts."""

import dagster as dg

from iot_platform.defs.telemetry.jobs import check_telemetry

check_telemetry_schedule = dg.ScheduleDefinition(
    name="check_telemetry_every_15_minutes",
    job=check_telemetry,
    cron_schedule="6-59/15 * * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
