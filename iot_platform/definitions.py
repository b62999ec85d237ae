"""The Dagster code location: everything under iot_platform/defs, one resource, one executor."""

import dagster as dg

import iot_platform.defs  # noqa: F401  quiets warnings about beta API before assets are defined
from iot_platform.defs import quality, rollups
from iot_platform.defs.ingestion.assets import ingestion_sources
from iot_platform.defs.ingestion.schedules import observe_ingestion, observe_ingestion_schedule
from iot_platform.defs.maintenance import compression, retention
from iot_platform.defs.maintenance.jobs import purge_dagster_history
from iot_platform.defs.maintenance.schedules import purge_dagster_history_schedule
from iot_platform.defs.telemetry import checks
from iot_platform.defs.telemetry.assets import drained_tables, project, tenant
from iot_platform.defs.telemetry.jobs import check_telemetry, drain
from iot_platform.defs.telemetry.schedules import check_telemetry_schedule
from iot_platform.defs.telemetry.sensors import kafka_lag, new_projects
from iot_platform.resources.platform import PlatformResource

STAGES = (rollups, quality, retention, compression)
"""Each names what it defines: ASSETS, JOBS, SCHEDULES; checks that are not of an asset's own: CHECKS."""


@dg.definitions
def defs() -> dg.Definitions:
    """Stages ingestion → telemetry → rollups → quality → maintenance. Nothing is read from environment or network here."""
    schedules = [observe_ingestion_schedule, check_telemetry_schedule, purge_dagster_history_schedule]
    return dg.Definitions(
        assets=[ingestion_sources, drained_tables, project, tenant, *(item for stage in STAGES for item in stage.ASSETS)],
        asset_checks=[*checks.CHECKS, *rollups.CHECKS, *compression.CHECKS],
        jobs=[observe_ingestion, drain, check_telemetry, purge_dagster_history, *(item for stage in STAGES for item in stage.JOBS)],
        sensors=[kafka_lag, new_projects],
        schedules=[*schedules, *(item for stage in STAGES for item in stage.SCHEDULES)],
        executor=dg.in_process_executor,
        resources={"platform": PlatformResource()},
    )
