"""The Dagster code location: every stage under iot_platform/defs, one resource, one executor."""

import dagster as dg

from iot_platform.defs import influx, ingestion, maintenance, quality, rollups, telemetry
from iot_platform.resources.platform import PlatformResource

STAGES = (ingestion, telemetry, rollups, quality, influx, maintenance)


@dg.definitions
def defs() -> dg.Definitions:
    """All stages, in the order in which data flows. Nothing is read from environment or network here."""
    common = dg.Definitions(executor=dg.in_process_executor, resources={"platform": PlatformResource()})
    return dg.Definitions.merge(common, *(stage.DEFINITIONS for stage in STAGES))
