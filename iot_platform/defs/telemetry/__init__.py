"""Stage 2: the tables that the drain fills, by Kafka partition, tenant and project."""

import dagster as dg

from iot_platform.defs.telemetry.assets import drained_tables, project, tenant
from iot_platform.defs.telemetry.checks import CHECKS
from iot_platform.defs.telemetry.jobs import check_telemetry, drain
from iot_platform.defs.telemetry.schedules import check_telemetry_schedule
from iot_platform.defs.telemetry.sensors import kafka_lag, new_projects

DEFINITIONS = dg.Definitions(
    assets=[drained_tables, project, tenant],
    asset_checks=CHECKS,
    jobs=[drain, check_telemetry],
    schedules=[check_telemetry_schedule],
    sensors=[kafka_lag, new_projects],
)
