"""When quality is judged: often enough that a finding is in the table and in the UI within 5 minutes."""

import dagster as dg

evaluate_quality = dg.define_asset_job(
    "evaluate_quality",
    selection=dg.AssetSelection.assets("quality_result"),
    description="Judges what was committed since the last evaluation, and tells every rule's state as a check.",
)

evaluate_quality_schedule = dg.ScheduleDefinition(
    name="evaluate_quality_every_3_minutes",
    job=evaluate_quality,
    cron_schedule="2-59/3 * * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
