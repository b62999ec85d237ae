"""Stage 3: hourly and daily rollups of measurements."""

import dagster as dg

from iot_platform.defs.rollups.assets import rolled_up_tables
from iot_platform.defs.rollups.checks import rollup_equals_measurement
from iot_platform.defs.rollups.jobs import roll_up_measurements
from iot_platform.defs.rollups.schedules import roll_up_measurements_schedule

DEFINITIONS = dg.Definitions(
    assets=[rolled_up_tables],
    asset_checks=[rollup_equals_measurement],
    jobs=[roll_up_measurements],
    schedules=[roll_up_measurements_schedule],
)
