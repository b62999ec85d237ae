"""The job that looks at the outside world."""

import dagster as dg

observe_ingestion = dg.define_asset_job(
    "observe_ingestion",
    selection=dg.AssetSelection.assets("mqtt_broker", "iot_messages"),
    description="Notes the state of the MQTT broker, and offsets and lag of the Kafka topic.",
)
