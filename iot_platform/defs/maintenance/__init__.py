"""Stage 5: keeps the database and Dagster's own history small."""

import dagster as dg

from iot_platform.defs.maintenance.assets import compressed_chunk, retention_removed
from iot_platform.defs.maintenance.checks import disk_is_sufficient, old_chunks_are_compressed
from iot_platform.defs.maintenance.jobs import compress_old_chunks, purge_dagster_history, remove_old_rows
from iot_platform.defs.maintenance.schedules import (
    compress_old_chunks_schedule,
    purge_dagster_history_schedule,
    remove_old_rows_schedule,
)
from iot_platform.defs.maintenance.sensors import tenant_sessions

DEFINITIONS = dg.Definitions(
    assets=[retention_removed, compressed_chunk],
    asset_checks=[old_chunks_are_compressed, disk_is_sufficient],
    jobs=[purge_dagster_history, remove_old_rows, compress_old_chunks],
    sensors=[tenant_sessions],
    schedules=[purge_dagster_history_schedule, remove_old_rows_schedule, compress_old_chunks_schedule],
)
