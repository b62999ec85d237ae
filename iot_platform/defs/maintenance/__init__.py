"""Stage 5: keeps the database and Dagster's own history small, makes backups, and does what users of the console ask for."""

import dagster as dg

from iot_platform.defs.maintenance.assets import backup_drill, compressed_chunk, database_backup, retention_removed
from iot_platform.defs.maintenance.checks import disk_is_sufficient, old_chunks_are_compressed, wal_archive_is_complete
from iot_platform.defs.maintenance.jobs import (
    back_up_database,
    carry_out_actions,
    compress_old_chunks,
    practise_restore,
    purge_dagster_history,
    remove_old_rows,
)
from iot_platform.defs.maintenance.schedules import (
    back_up_database_schedule,
    compress_old_chunks_schedule,
    practise_restore_schedule,
    purge_dagster_history_schedule,
    remove_old_rows_schedule,
)
from iot_platform.defs.maintenance.sensors import console_actions, tenant_sessions

DEFINITIONS = dg.Definitions(
    assets=[retention_removed, compressed_chunk, database_backup, backup_drill],
    asset_checks=[old_chunks_are_compressed, disk_is_sufficient, wal_archive_is_complete],
    jobs=[purge_dagster_history, remove_old_rows, compress_old_chunks, back_up_database, practise_restore, carry_out_actions],
    sensors=[tenant_sessions, console_actions],
    schedules=[
        purge_dagster_history_schedule,
        remove_old_rows_schedule,
        compress_old_chunks_schedule,
        back_up_database_schedule,
        practise_restore_schedule,
    ],
)
