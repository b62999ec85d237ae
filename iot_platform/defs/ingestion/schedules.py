"""When the outside world is looked at."""

import dagster as dg

observe_ingestion = dg.define_asset_job(
    "observe_ingestion",
    selection=dg.AssetSelection.assets("mqtt_broker", "iot_messages"),
    description="Notes the state of the MQTT broker, and offsets and lag of the Kafka topic.",
)

observe_ingestion_schedule = dg.ScheduleDefinition(
    name="observe_ingestion_every_5_minutes",
    job=observe_ingestion,
    cron_schedule="1-59/5 * * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
