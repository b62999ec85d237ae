"""When maintenance happens."""

import dagster as dg

from iot_platform.defs.maintenance.jobs import compress_old_chunks, purge_dagster_history, remove_old_rows

purge_dagster_history_schedule = dg.ScheduleDefinition(
    name="purge_dagster_history_daily",
    job=purge_dagster_history,
    cron_schedule="17 3 * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)

# Shortly after midnight (UTC) most of what is beyond its policy lies in whole chunks, and little is deleted row by row.
remove_old_rows_schedule = dg.ScheduleDefinition(
    name="remove_old_rows_daily",
    job=remove_old_rows,
    cron_schedule="37 1 * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)

compress_old_chunks_schedule = dg.ScheduleDefinition(
    name="compress_old_chunks_daily",
    job=compress_old_chunks,
    cron_schedule="43 2 * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
