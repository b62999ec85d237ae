"""What the repository holds: backups and archived WAL, asked of pgBackRest."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from iot_platform.backup.archive import Archive, Backup, StrangeNameError, history_timeline, parse_history, parse_lsn
from iot_platform.backup.errors import BackupError
from iot_platform.backup.host import DatabaseHost
from iot_platform.backup.repository import STANZA

_OTHER: Final = 99
"""pgBackRest's code for what it has no code for."""


@dataclass(frozen=True)
class Repository:
    """The stanza: `backups` oldest first; `archive_id` is pgBackRest's name for the WAL of this database, such as 17-1."""

    backups: tuple[Backup, ...]
    archive_id: str
    system_id: str
    encrypted: bool
    first_wal: str
    last_wal: str


def read_repository(host: DatabaseHost) -> Repository:
    """The backups that there are.

    Raises:
        BackupError: the repository cannot be read, or was never made.
    """
    stanza = next((item for item in host.pgbackrest_json("info") if item["name"] == STANZA), None)
    if stanza is not None:
        _require_readable(stanza)
    if stanza is None or not stanza["db"]:
        said = stanza["status"]["message"] if stanza else "there is none of that name"
        raise BackupError(f"the repository has no stanza '{STANZA}' ({said}): `iot up` makes it, or pgbackrest stanza-create")
    database = stanza["db"][-1]
    archive_id = f"{database['version']}-{database['id']}"
    wal: dict[str, str] = next((item for item in stanza["archive"] if item["id"] == archive_id), {})
    own = [item for item in stanza["backup"] if item["database"]["id"] == database["id"]]
    return Repository(
        tuple(sorted(map(_backup, own), key=lambda backup: backup.stopped_at)),
        archive_id,
        str(database["system-id"]),
        stanza["cipher"] != "none",
        wal.get("min") or "",
        wal.get("max") or "",
    )


def read_archive(host: DatabaseHost, archive_id: str) -> Archive:
    """The names of all WAL segments, and the history files. Reads one listing, of a year at 16 MB a minute half a million names.

    Raises:
        BackupError: the repository cannot be read, or has WAL segments of another size than 16 MB.
    """
    listing = host.pgbackrest_json("repo-ls", "--recurse", arguments=[f"archive/{STANZA}/{archive_id}"])
    files = {path.rpartition("/")[2]: item for path, item in listing.items() if item["type"] == "file"}
    histories = {
        timeline: parse_history(host.pgbackrest("repo-get", arguments=[f"archive/{STANZA}/{archive_id}/{name}"]))
        for name in files
        if (timeline := history_timeline(name)) is not None
    }
    try:
        return Archive.of(files, histories, max((item["time"] for item in files.values()), default=0))
    except StrangeNameError as error:
        raise BackupError(str(error)) from error


def in_utc(seconds: float) -> str:
    """A time (since the epoch) for people, in whole seconds, as pgBackRest has them."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%SZ}"


def _require_readable(stanza: dict[str, Any]) -> None:
    """pgBackRest ends with 0 and an empty list where S3 refuses it, or the passphrase is another one."""
    for status in (item["status"] for item in stanza["repo"]):
        if status["code"] == _OTHER:
            said = status["message"].splitlines()[0].rstrip(":")
            wrong = (
                "; its passphrase may be another one (IOT_BACKUP_CIPHER_FILE)" if "[FormatError]" in said or "[CryptoError]" in said else ""
            )
            raise BackupError(f"the repository cannot be read: {said}{wrong}")


def _backup(item: dict[str, Any]) -> Backup:
    return Backup(
        item["label"],
        item["type"],
        item["timestamp"]["start"],
        item["timestamp"]["stop"],
        parse_lsn(item["lsn"]["start"]),
        parse_lsn(item["lsn"]["stop"]),
        item["archive"]["start"],
        item["archive"]["stop"],
        item["info"]["size"],
        item["info"]["repository"]["delta"],
        bool(item["error"]),
    )
