"""When maintenance happens."""

import dagster as dg

from iot_platform.defs.maintenance.jobs import purge_dagster_history

purge_dagster_history_schedule = dg.ScheduleDefinition(
    name="purge_dagster_history_daily",
    job=purge_dagster_history,
    cron_schedule="17 3 * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
