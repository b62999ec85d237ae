"""Stage 1: the MQTT broker and the Kafka topic, observed from outside."""

import dagster as dg

from iot_platform.defs.ingestion.assets import ingestion_sources
from iot_platform.defs.ingestion.jobs import observe_ingestion
from iot_platform.defs.ingestion.schedules import observe_ingestion_schedule

DEFINITIONS = dg.Definitions(assets=[ingestion_sources], jobs=[observe_ingestion], schedules=[observe_ingestion_schedule])
