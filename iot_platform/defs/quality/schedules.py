"""When quality is judged: often enough that a finding is in the table and in the UI within 5 minutes."""

import dagster as dg

from iot_platform.defs.quality.jobs import evaluate_quality

evaluate_quality_schedule = dg.ScheduleDefinition(
    name="evaluate_quality_every_3_minutes",
    job=evaluate_quality,
    cron_schedule="2-59/3 * * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
