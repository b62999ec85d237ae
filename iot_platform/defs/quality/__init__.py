"""Stage 4: what the quality rules found. ASSETS, JOBS and SCHEDULES are what definitions.py takes."""

from iot_platform.defs.quality.assets import quality_result
from iot_platform.defs.quality.schedules import evaluate_quality, evaluate_quality_schedule

ASSETS = [quality_result]
JOBS = [evaluate_quality]
SCHEDULES = [evaluate_quality_schedule]
