"""Stage 3: hourly and daily rollups of measurements."""

from iot_platform.defs.rollups.assets import rolled_up_tables
from iot_platform.defs.rollups.checks import rollup_equals_measurement
from iot_platform.defs.rollups.schedules import roll_up_measurements, roll_up_measurements_schedule

ASSETS = [rolled_up_tables]
CHECKS = [rollup_equals_measurement]
JOBS = [roll_up_measurements]
SCHEDULES = [roll_up_measurements_schedule]
