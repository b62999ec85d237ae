"""What the backups' repository says."""

from iot_platform.backup.create import KINDS
from iot_platform.backup.host import DatabaseHost
from iot_platform.backup.listing import read_repository
from iot_platform.metrics.values import Values
from iot_platform.settings import Settings


def look_at_backups(settings: Settings, values: Values) -> None:
    """When the newest sound backup of each type ended. Raises BackupError."""
    newest: dict[str, float] = dict.fromkeys(KINDS, 0.0)
    for backup in read_repository(DatabaseHost.of(settings, read_only=True)).backups:
        if backup.broken:
            continue
        newest[backup.type] = max(newest.get(backup.type, 0.0), float(backup.stopped_at))
    values.put("iot_backup_last_success_timestamp_seconds", {(kind,): ended for kind, ended in newest.items()})
