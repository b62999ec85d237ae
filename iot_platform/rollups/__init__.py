"""Hourly and daily rollups of measurements: keeping them equal to what measurement gives, on either edition. Knows no Dagster."""

from iot_platform.rollups.advance import roll_up
from iot_platform.rollups.rebuild import Rebuild, RebuildStep
from iot_platform.rollups.result import RollupResult
from iot_platform.rollups.status import RollupStatus, rollup_status

__all__ = ["Rebuild", "RebuildStep", "RollupResult", "RollupStatus", "roll_up", "rollup_status"]
