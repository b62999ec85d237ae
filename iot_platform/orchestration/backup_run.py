"""Bodies of the asset database_backup, its check and its schedule."""

from typing import Final

import dagster as dg

from iot_platform.backup.create import create
from iot_platform.backup.errors import BackupError
from iot_platform.backup.host import DatabaseHost
from iot_platform.backup.verify import verify
from iot_platform.settings import Settings

ASSET: Final = "database_backup"
CHECK: Final = "wal_archive_is_complete"
JOB: Final = "back_up_database"


def back_up(settings: Settings) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """Make the backup that is due, and remove those that are too old.

    Raises:
        BackupError: it was not made, or none is set up.
    """
    made = create(settings)
    return dg.MaterializeResult(
        asset_key=ASSET,
        metadata={
            "label": made.label,
            "type": made.type,
            "seconds": made.stopped_at - made.started_at,
            "stopped_at": dg.MetadataValue.timestamp(float(made.stopped_at)),
            "database_bytes": dg.MetadataValue.int(made.database_bytes),
            "repository_bytes": dg.MetadataValue.int(made.repository_bytes),
            "timeline": made.timeline,
            "wal_first": made.first_segment,
        },
    )


def evaluate_archive(settings: Settings) -> dg.AssetCheckResult:
    """Whether the WAL since the oldest backup is there without a hole, and more of it arrives."""
    try:
        found = verify(DatabaseHost.of(settings), checksums=False)
        problems = found.problems + found.unknown
        metadata = {"wal_segments": found.segments, "holes": len(found.holes), "wal_waiting": found.waiting}
    except BackupError as error:
        problems, metadata = [str(error)], {}
    return dg.AssetCheckResult(
        check_name=CHECK, asset_key=ASSET, passed=not problems, metadata=metadata, description="; ".join(problems) or None
    )


def request(settings: Settings) -> dg.RunRequest | dg.SkipReason:
    """What the schedule's tick asks for."""
    if not settings.backup_config:
        return dg.SkipReason("no backups are set up: IOT_BACKUP_REPOSITORY (local stack) or IOT_BACKUP_CONFIG (docs/backup.md)")
    return dg.RunRequest()
