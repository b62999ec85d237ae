"""Making a backup, and which kind is due."""

import time
from typing import Final, Literal

from iot_platform.backup.archive import Backup
from iot_platform.backup.errors import BackupError
from iot_platform.backup.host import DatabaseHost
from iot_platform.backup.listing import read_repository
from iot_platform.settings import Settings

Kind = Literal["full", "diff", "incr"]
KINDS: Final[tuple[Kind, ...]] = ("full", "diff", "incr")
_DAY: Final = 86400.0
_SLACK_SECONDS: Final = 3600.0  # a daily schedule is a little early as often as late


def create(settings: Settings, kind: Kind | None = None) -> Backup:
    """Make a backup now (None: of the kind that is due), remove what is older than IOT_BACKUP_KEEP_DAYS, and return it. Blocks as long as
    it takes.

    Raises:
        BackupError: it was not made, or of a damaged database.
    """
    host = DatabaseHost.of(settings)
    before = read_repository(host).backups
    chosen = kind or due(before, settings, time.time())
    host.pgbackrest("backup", f"--type={chosen}")
    made = [backup for backup in read_repository(host).backups if backup.label not in {item.label for item in before}]
    if not made:
        raise BackupError("pgbackrest ended without an error, but there is no new backup")
    if made[-1].broken:
        raise BackupError(
            f"backup {made[-1].label} was made, but pages of the database have wrong checksums: its disk is damaged. Restores pass this"
            " backup over; restore to a time before the damage, or repair the table"
        )
    return made[-1]


def due(backups: tuple[Backup, ...], settings: Settings, now: float) -> Kind:
    """`full` if the newest full one is IOT_BACKUP_FULL_DAYS old, or there is none; else `diff`."""
    newest = max((backup.started_at for backup in backups if backup.type == "full" and not backup.broken), default=None)
    old = newest is None or now - newest >= settings.backup_full_days * _DAY - _SLACK_SECONDS
    return "full" if old else "diff"
