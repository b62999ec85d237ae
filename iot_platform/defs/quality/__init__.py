"""Stage 4: what the quality rules found."""

import dagster as dg

from iot_platform.defs.quality.assets import quality_result
from iot_platform.defs.quality.jobs import evaluate_quality
from iot_platform.defs.quality.schedules import evaluate_quality_schedule

DEFINITIONS = dg.Definitions(assets=[quality_result], jobs=[evaluate_quality], schedules=[evaluate_quality_schedule])
