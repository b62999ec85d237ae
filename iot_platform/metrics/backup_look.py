"""What the backups' repository says: asked in a thread of its own, because it may be far away."""

import threading
from typing import Final

from iot_platform.backup.create import KINDS
from iot_platform.backup.host import DatabaseHost
from iot_platform.backup.listing import read_repository
from iot_platform.metrics.look import take
from iot_platform.metrics.values import Values
from iot_platform.settings import Settings

LOOK_SECONDS: Final = 300.0


def look_at_backups(settings: Settings, values: Values) -> None:
    """When the newest sound backup of each type ended. Raises BackupError."""
    newest: dict[str, float] = dict.fromkeys(KINDS, 0.0)
    for backup in read_repository(DatabaseHost.of(settings, read_only=True)).backups:
        if backup.broken:
            continue
        newest[backup.type] = max(newest.get(backup.type, 0.0), float(backup.stopped_at))
    values.put("iot_backup_last_success_timestamp_seconds", {(kind,): ended for kind, ended in newest.items()})


def watch_backups(settings: Settings, values: Values, stop: threading.Event) -> None:
    """Look every LOOK_SECONDS in a thread of its own until `stop` is set; where no backups are set up, never."""

    def run() -> None:
        while not stop.is_set():
            take(values, "backups", "backups", lambda: look_at_backups(settings, values))
            stop.wait(LOOK_SECONDS)

    if settings.backup_config:
        threading.Thread(target=run, name="backups", daemon=True).start()
