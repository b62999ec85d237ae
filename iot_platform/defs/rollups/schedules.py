"""When rollups are brought up to date. Ticks missed while the daemon was down are made up for by one run (the job has no partitions)."""

import dagster as dg

from iot_platform.defs.rollups.jobs import roll_up_measurements

_UNFINISHED = [dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED]


@dg.schedule(
    name="roll_up_measurements_every_5_minutes",
    job=roll_up_measurements,
    cron_schedule="3-59/5 * * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Rollups every 5 minutes, unless a run of before is still at it.",
)
def roll_up_measurements_schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """One run at a time: it does all there is, so a second one behind it would do nothing."""
    if context.instance.get_runs_count(dg.RunsFilter(job_name="roll_up_measurements", statuses=_UNFINISHED)):
        return dg.SkipReason("the run before has not ended")
    return dg.RunRequest()
