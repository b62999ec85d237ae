"""The local PostgreSQL with TimescaleDB: its own cluster, from the system's packages or from a root file system in the cache."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from iot_platform.backup.repository import Repository
from iot_platform.local import postgresql_backup, probes
from iot_platform.local.errors import LocalStackError
from iot_platform.local.install import Note, debian_codename, run_logged, which
from iot_platform.local.passwords import Passwords
from iot_platform.local.ports import LOOPBACK
from iot_platform.local.postgresql_backup import Place
from iot_platform.local.postgresql_install import (
    BACKUP_PACKAGE,
    NEWEST_RELEASE,
    PACKAGES,
    RELEASE,
    Installation,
    find_installed,
    install_pgbackrest,
    install_rootfs,
)
from iot_platform.local.program import Program, base_environment

# Runs a command as user postgres with the data folder at /srv: under a root file system of its own, or under / when the
# checkout lies below a folder that this user may not enter. Backups' repository (or -) is at /mnt. The mounts vanish with the process.
_ENTER = """set -e
root=$1 data=$2 repository=$3; shift 3
if [ "$repository" != - ]; then mount --bind "$repository" "$root/mnt"; fi
mount --bind "$data" "$root/srv"
if [ "$root" != / ]; then mount --rbind /dev "$root/dev"; mount --rbind /proc "$root/proc"; fi
exec chroot --userspec=postgres:postgres "$root" "$@"
"""
_SETTINGS = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    "shared_preload_libraries": "timescaledb",
    "timescaledb.telemetry_level": "off",
    "max_connections": "200",
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
    "timezone": "UTC",
}


@dataclass(frozen=True)
class PostgresqlServer:
    """PostgreSQL on the loopback interface, scram passwords, run as user `postgres` when we are root."""

    local_dir: Path
    cache_dir: Path
    port: int
    passwords: Passwords
    durable: bool = True  # False: no fsync, for tests
    newest: bool = False  # True: Debian's newest packages, whatever is installed here, for tests
    repository: Repository | None = None  # of backups
    name: str = "postgresql"

    @property
    def log_dir(self) -> Path:
        """Where its output goes."""
        return self.local_dir / "logs"

    def url(self, role: str, database: str = "iot") -> str:
        """URL of a database for one of the stack's roles."""
        return f"postgresql://{role}:{quote(self.passwords.of(role))}@{LOOPBACK}:{self.port}/{database}"

    def missing_packages(self) -> dict[str, str]:
        """See Server."""
        # psql is a convenience: no reason to refuse anybody who can't install it.
        client = {"postgresql-client": "psql, for `iot sql`"} if os.geteuid() == 0 and not which("psql") else {}
        here = self._installed() is not None or (debian_codename() == RELEASE and not self.newest)
        if self.repository and here and not which(BACKUP_PACKAGE):
            client[BACKUP_PACKAGE] = "backups (IOT_BACKUP_REPOSITORY)"
        if self._installed() or (os.geteuid() == 0 and self._rootfs.exists()):
            return client
        if debian_codename() == RELEASE and not self.newest:
            return client | dict.fromkeys(PACKAGES, "the database; or set IOT_DATABASE_URL to a server of yours")
        if os.geteuid() != 0:
            raise LocalStackError(
                "PostgreSQL with TimescaleDB >= 2.19.1 is not installed: run `iot up` as root, which fetches both, "
                "install them yourself, or set IOT_DATABASE_URL to a server of yours"
            )
        if which("debootstrap") is None:
            client["debootstrap"] = "fetches PostgreSQL and TimescaleDB, which this release does not have"
        return client

    def prepare(self, note: Note) -> None:
        """See Server."""
        installation = self._installation(note)
        data = self._data
        data.mkdir(parents=True, exist_ok=True)
        self._own(installation)
        others = [path.name for path in data.iterdir() if path.name.isdigit() and path.name != installation.major]
        if others and not (data / installation.major).exists():
            raise LocalStackError(
                f"{data} holds data of PostgreSQL {others[0]}, but {installation.major} is installed: pg_upgrade it, or `iot clean-data`"
            )
        self.prepare_backups(note)
        if not (data / installation.major / "PG_VERSION").exists():
            self._initialize(installation, note)

    def prepare_backups(self, note: Note) -> None:
        """What `iot backup` needs, and nothing else: also where there is no data folder, to restore it. Nothing without a repository."""
        if self.repository is None:
            return
        installation = self._installation(note)
        if installation.root != Path("/"):
            install_pgbackrest(installation.root, self.log_dir / "install.log", note)
        self._data.mkdir(parents=True, exist_ok=True)
        self._own(installation)
        place = Place(installation, self._data, self._mounted(installation), self.port)
        postgresql_backup.write(self.repository, place, self.passwords, self.local_dir)

    def backup_notes(self) -> dict[str, str]:
        """The settings by which `iot backup` finds pgBackRest here; none without a repository."""
        if self.repository is None:
            return {}
        mounted = os.geteuid() == 0 and (self._installed() is None or _may_mount())
        return postgresql_backup.notes(self.repository, self.local_dir, self._data, mounted=mounted)

    def program(self) -> Program:
        """See Server."""
        installation = self._installation(_quiet)
        options = _SETTINGS | {"port": str(self.port)}
        if int(installation.major) >= 16:
            options["reserved_connections"] = "80"  # of the 200, for the platform's roles, whatever tenants' logins hold
        if not self.durable:
            options |= {"fsync": "off", "full_page_writes": "off"}  # survives kill -9 of the server, not of the machine
        if self.repository is not None:
            options |= postgresql_backup.options(Place(installation, self._data, self._mounted(installation), self.port))
        arguments = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        command = self._inside(installation, "postgres", "-D", self._path(installation, installation.major), *arguments)
        environment = base_environment(self.local_dir) | {"LC_ALL": "C.UTF-8"}
        return Program(self.name, command, self.local_dir, environment, stop_signal="INT", stop_seconds=60)

    def check(self) -> None:
        """See Server."""
        probes.postgresql(self.url("postgres", "postgres"))

    def provision(self, note: Note) -> None:
        """See Server: roles, database and extension."""
        from iot_platform.local.postgresql_roles import close_other_databases, create_database, create_roles

        note("creating roles and database")
        superuser = self.url("postgres", "postgres")
        create_roles(superuser, self.passwords)
        close_other_databases(superuser)
        create_database(superuser, "iot")
        if self.repository is not None:
            note("preparing the backups' repository")
            postgresql_backup.provision(self._data, self.backup_notes(), self.repository)

    # -- private ---------------------------------------------------------------------------------------------
    @property
    def _data(self) -> Path:
        return self.local_dir / "data" / "postgresql"

    @property
    def _rootfs(self) -> Path:
        return self.cache_dir / f"postgresql-{NEWEST_RELEASE if self.newest else RELEASE}"

    def _installed(self) -> Installation | None:
        return None if self.newest else find_installed()

    def _installation(self, note: Note) -> Installation:
        installed = self._installed()
        if installed:
            return installed
        if os.geteuid() != 0:
            raise LocalStackError("PostgreSQL with TimescaleDB is not installed: install it as root, or set IOT_DATABASE_URL")
        install_rootfs(self._rootfs, self.log_dir / "install.log", note, newest=self.newest)
        found = find_installed(self._rootfs)
        if found is None:
            raise LocalStackError(f"{self._rootfs} is damaged: remove it and repeat")
        return found

    def _inside(self, installation: Installation, command: str, *arguments: str) -> tuple[str, ...]:
        argv = (f"{installation.bin_dir}/{command}", *arguments)
        if os.geteuid() != 0:
            return argv
        if _may_mount():
            repository = self.repository.folder if self.repository else None
            enter = (_ENTER, "sh", str(installation.root), str(self._data), str(repository or "-"))
            return ("unshare", "--mount", "--propagation", "private", "sh", "-c", *enter, *argv)
        if installation.root != Path("/"):
            raise LocalStackError(
                "this container may not mount (CAP_SYS_ADMIN), which the downloaded PostgreSQL needs: set IOT_DATABASE_URL"
            )
        become = ("setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups")
        if subprocess.run([*become, "test", "-x", str(self._data)], check=False).returncode != 0:
            raise LocalStackError(
                f"user postgres may not enter {self._data}: set IOT_LOCAL_DIR to a folder below one that it may, like /srv"
            )
        return (*become, *argv)

    def _path(self, installation: Installation, name: str) -> str:
        """A path below the data folder as the server sees it."""
        return f"/srv/{name}" if self._mounted(installation) else str(self._data / name)

    def _mounted(self, installation: Installation) -> bool:
        return os.geteuid() == 0 and (installation.root != Path("/") or _may_mount())

    def _own(self, installation: Installation) -> None:
        """Give the data to the server's user; only the first time, or after a change of installation."""
        if os.geteuid() == 0 and self._data.stat().st_uid != installation.uid:
            run_logged(
                ["chown", "-R", f"{installation.uid}:{installation.gid}", str(self._data)],
                self.log_dir / "install.log",
                _quiet,
                what="chown",
            )

    def _initialize(self, installation: Installation, note: Note) -> None:
        note("initialising its data folder")
        shutil.rmtree(self._data / installation.major, ignore_errors=True)  # of an initdb that was killed
        password = self._data / "password"
        password.touch(mode=0o600)
        password.write_text(self.passwords.of("postgres"), "utf-8")
        if os.geteuid() == 0:
            os.chown(password, installation.uid, installation.gid)
        try:
            target = self._path(installation, "new")
            shutil.rmtree(self._data / "new", ignore_errors=True)
            initdb = ("-D", target, "-U", "postgres", "--auth=scram-sha-256", f"--pwfile={self._path(installation, 'password')}", "-k")
            locale = ("--encoding=UTF8", "--locale=C.UTF-8", *(() if self.durable else ("--no-sync",)))
            run_logged(self._inside(installation, "initdb", *initdb, *locale), self.log_dir / "install.log", note, what="initdb")
            (self._data / "new").rename(self._data / installation.major)
        finally:
            password.unlink(missing_ok=True)


def _quiet(_text: str) -> None:
    """A Note for steps too short to mention."""


def _may_mount() -> bool:
    return subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True).returncode == 0
