"""When the outside world is looked at."""

import dagster as dg

from iot_platform.defs.ingestion.jobs import observe_ingestion

observe_ingestion_schedule = dg.ScheduleDefinition(
    name="observe_ingestion_every_5_minutes",
    job=observe_ingestion,
    cron_schedule="1-59/5 * * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
