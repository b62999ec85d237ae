"""When maintenance happens."""

import dagster as dg

from iot_platform.defs.maintenance.jobs import (
    back_up_database,
    compress_old_chunks,
    practise_restore,
    purge_dagster_history,
    remove_old_rows,
)
from iot_platform.orchestration import backup_run
from iot_platform.resources.platform import PlatformResource

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


# After retention and compression: what they removed or made smaller need not be copied.
@dg.schedule(
    name="back_up_database_daily",
    job=back_up_database,
    cron_schedule="13 4 * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
def back_up_database_schedule(platform: PlatformResource) -> dg.RunRequest | dg.SkipReason:
    """Daily, where backups are set up."""
    return backup_run.request(platform.settings())


# After the backup. Asked each day, so that a drill that failed is repeated the next day, and a new repository waits for none.
@dg.schedule(
    name="practise_restore_daily",
    job=practise_restore,
    cron_schedule="23 5 * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
def practise_restore_schedule(platform: PlatformResource) -> dg.RunRequest | dg.SkipReason:
    """Where backups are set up: when the last drill that passed is IOT_BACKUP_DRILL_DAYS old."""
    return backup_run.request_drill(platform.settings())
