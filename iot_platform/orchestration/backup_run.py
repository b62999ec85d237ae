"""Bodies of the assets database_backup and backup_drill, their checks and schedules."""

from datetime import UTC, datetime
from typing import Any, Final

import dagster as dg

from iot_platform.backup.create import create
from iot_platform.backup.drill import AnotherDrillError, drill, due, read_drills, scratch_folder
from iot_platform.backup.errors import BackupError
from iot_platform.backup.host import DatabaseHost
from iot_platform.backup.verify import verify
from iot_platform.logs import get_logger
from iot_platform.settings import Settings

ASSET: Final = "database_backup"
CHECK: Final = "wal_archive_is_complete"
JOB: Final = "back_up_database"
DRILL_ASSET: Final = "backup_drill"
DRILL_CHECK: Final = "newest_backup_can_be_restored"
DRILL_JOB: Final = "practise_restore"


_NOT_SET_UP: Final = "no backups are set up: IOT_BACKUP_REPOSITORY (local stack) or IOT_BACKUP_CONFIG (docs/backup.md)"
log = get_logger(__name__)


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
        return dg.SkipReason(_NOT_SET_UP)
    return dg.RunRequest()


def practise(settings: Settings) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """Restore the newest backup for practice. A drill that fails is a drill, too: its check says so.

    Raises:
        AnotherDrillError: one is at work.
    """
    try:
        report = drill(settings, scratch_folder(settings), lambda text: log.info("backup drill", step=text))
    except AnotherDrillError:
        raise
    except BackupError as error:
        return dg.MaterializeResult(asset_key=DRILL_ASSET, check_results=[_drilled([str(error)])])
    metadata: dict[str, Any] = {
        "label": report.plan.backup.label,
        "timeline": report.recovery.left,
        "restore_seconds": round(report.restore_seconds, 1),
        "recovery_seconds": round(report.recovery_seconds, 1),
        "missing_messages": dg.MetadataValue.int(report.missing_messages),
        "lost_messages": dg.MetadataValue.int(report.lost_messages),
        **({"committed_at": dg.MetadataValue.timestamp(report.committed_at)} if report.committed_at else {}),
    }
    return dg.MaterializeResult(asset_key=DRILL_ASSET, metadata=metadata, check_results=[_drilled(report.problems)])


def request_drill(settings: Settings) -> dg.RunRequest | dg.SkipReason:
    """What the drill schedule's tick asks for. Raises DatabaseError, psycopg2.Error."""
    if not settings.backup_config:
        return dg.SkipReason(_NOT_SET_UP)
    if not settings.backup_drill_days:
        return dg.SkipReason("IOT_BACKUP_DRILL_DAYS is 0")
    drills = read_drills(settings)
    if drills.passed_at is not None and not due(drills, settings, datetime.now(UTC)):
        return dg.SkipReason(
            f"the last drill passed at {drills.passed_at:%Y-%m-%d %H:%M}Z; one is due every {settings.backup_drill_days:g} days"
        )
    return dg.RunRequest()


def _drilled(problems: list[str]) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(check_name=DRILL_CHECK, asset_key=DRILL_ASSET, passed=not problems, description="; ".join(problems) or None)
