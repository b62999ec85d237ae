"""pgBackRest beside the local PostgreSQL: its configuration, the script by which it is run as the server's user, its repository."""

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from iot_platform.backup.errors import BackupError
from iot_platform.backup.host import FOLDER, READ_ONLY, DatabaseHost
from iot_platform.backup.repository import Repository, Server, pgbackrest_conf, server_settings
from iot_platform.local.errors import LocalStackError
from iot_platform.local.passwords import Passwords
from iot_platform.local.postgresql_install import Installation

_WORK: Final = "pgbackrest"
_SOCKET: Final = "run"
_CONFIG: Final = f"{_WORK}/pgbackrest.conf"
_DRILL_CONFIG: Final = f"{_WORK}/drill.conf"
_AUTHORITIES: Final = f"{_WORK}/ca.pem"
_SYSTEM_AUTHORITIES: Final = Path("/etc/ssl/certs/ca-certificates.crt")
_PASSFILE: Final = f"{_WORK}/pgpass"
# $1: the folder that is restored to, or -. It is /media inside, and the server's user's.
_MOUNTED: Final = """#!/bin/sh
# Written by `iot up`: runs a program beside the local PostgreSQL, as its user. The mounts vanish with the process.
export PATH={bin}:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 PGHOST={socket} PGPORT={port} PGUSER=postgres PGPASSFILE={passfile}
exec unshare --mount --propagation private sh -c 'set -e
root=$1 data=$2 repository=$3 folder=$4; shift 4
if [ "$repository" != - ]; then
    mount --bind "$repository" "$root/mnt"
    if [ "${read_only:-}" = yes ]; then mount -o remount,bind,ro "$root/mnt"; fi
fi
if [ "$folder" != - ]; then mount --bind "$folder" "$root/media"; chown {uid}:{gid} "$root/media"; fi
mount --bind "$data" "$root/srv"
if [ "$root" != / ]; then mount --rbind /dev "$root/dev"; mount --rbind /proc "$root/proc"; fi
exec chroot --userspec=postgres:postgres "$root" "$@"' sh {root} {data} {repository} "$@"
"""
_PLAIN: Final = """#!/bin/sh
# Written by `iot up`: runs a program beside the local PostgreSQL, as its user.
export PATH={bin}:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 PGHOST={socket} PGPORT={port} PGUSER=postgres PGPASSFILE={passfile}
exec {become} "$@"
"""
_BECOME: Final = "setpriv --reuid=postgres --regid=postgres --init-groups"


@dataclass(frozen=True)
class Place:
    """A local server: what runs it, its folder (with the data in a folder named as the major version), whether that is mounted at /srv."""

    installation: Installation
    data: Path
    mounted: bool
    port: int

    def path(self, name: str) -> str:
        """A path below the folder as the server sees it."""
        return f"/srv/{name}" if self.mounted else str(self.data / name)


def notes(repository: Repository, local_dir: Path, data: Path, *, mounted: bool) -> dict[str, str]:
    """The settings (field → value) by which `iot backup` finds the script and the configurations."""
    folder, configs = f" {FOLDER}" if mounted else "", "/srv" if mounted else str(data)
    drill = {"backup_drill_config": f"{configs}/{_DRILL_CONFIG}"} if repository.for_drills else {}
    return {"backup_exec": shlex.quote(str(_script(local_dir))) + folder, "backup_config": f"{configs}/{_CONFIG}", **drill}


def options(place: Place) -> dict[str, str]:
    """Of the server: it archives its WAL, and has a socket that only its user may use, for pgBackRest."""
    return server_settings(place.path(_CONFIG)) | {"unix_socket_directories": place.path(_SOCKET), "unix_socket_permissions": "0700"}


def write(repository: Repository, place: Place, passwords: Passwords, local_dir: Path) -> None:
    """The configuration, the script and an empty repository's folder; all of it anew each time.

    Raises:
        LocalStackError: with the cause and the remedy.
    """
    installation = place.installation
    server = Server(place.path(installation.major), place.path(_WORK), place.port, place.path(_SOCKET))
    authorities = "" if repository.folder else place.path(_AUTHORITIES)
    wanted = {_CONFIG: repository} | ({_DRILL_CONFIG: repository.for_drills} if repository.for_drills else {})
    try:
        configs = {name: pgbackrest_conf(item, server, "/mnt" if place.mounted else "", authorities) for name, item in wanted.items()}
    except BackupError as error:
        raise LocalStackError(str(error)) from error
    for name in (_WORK, _SOCKET):
        _folder(place.data / name, installation)
    for name, text in configs.items():
        _private(place.data / name, text, installation)
    _private(place.data / _PASSFILE, f"*:*:*:postgres:{passwords.of('postgres')}\n", installation)
    if repository.folder is not None:
        _folder(repository.folder, installation)
    else:  # the root file system has none
        _private(place.data / _AUTHORITIES, _read(repository.s3_ca_file or _SYSTEM_AUTHORITIES), installation)
    text = (_MOUNTED if place.mounted else _PLAIN).replace("read_only", READ_ONLY)
    values = {
        "bin": installation.bin_dir,
        "socket": place.path(_SOCKET),
        "port": str(place.port),
        "passfile": place.path(_PASSFILE),
        "uid": str(installation.uid),
        "gid": str(installation.gid),
        "root": str(installation.root),
        "data": str(place.data),
        "repository": str(repository.folder or "-"),
        "become": _BECOME if os.geteuid() == 0 else "",
    }
    for name, value in values.items():
        text = text.replace(f"{{{name}}}", value if name == "become" else shlex.quote(value))
    script = _script(local_dir)
    script.parent.mkdir(parents=True, exist_ok=True)
    script.touch(mode=0o700)
    script.write_text(text, "utf-8")


def provision(data: Path, settings: Mapping[str, str], repository: Repository) -> None:
    """Make the repository of the running server, unless it is there, and see that a WAL segment gets there.

    Raises:
        LocalStackError: the repository belongs to another database, or cannot be written.
    """
    host = DatabaseHost(settings["backup_exec"], settings["backup_config"])
    try:
        host.pgbackrest("stanza-create")
        host.pgbackrest("check")
    except BackupError as error:
        if "[028]" in str(error):
            raise LocalStackError(
                f"IOT_BACKUP_REPOSITORY: {repository.location} has backups of another database than the one in {data}. To go on with that"
                f" one: `iot down`, move {data} away, `iot backup restore` (docs/backup.md). Otherwise name another repository"
            ) from error
        raise LocalStackError(f"IOT_BACKUP_REPOSITORY: {repository.location}: {error}") from error


def _script(local_dir: Path) -> Path:
    return local_dir / "run" / "database-exec"


def _folder(path: Path, installation: Installation) -> None:
    """The server's user's, if it is new or empty."""
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    if os.geteuid() == 0 and not any(path.iterdir()):
        os.chown(path, installation.uid, installation.gid)


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except OSError as error:
        raise LocalStackError(f"IOT_BACKUP_S3_CA_FILE: {path} cannot be read: {error.strerror}") from error


def _private(path: Path, text: str, installation: Installation) -> None:
    """A file for the server's user alone, replaced in one step."""
    new = path.with_suffix(".new")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    if os.geteuid() == 0:
        os.chown(new, installation.uid, installation.gid)
    new.rename(path)
