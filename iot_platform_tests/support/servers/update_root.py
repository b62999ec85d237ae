"""A Debian root file system with two releases of PostgreSQL that have one release of TimescaleDB, and a server that runs from it."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import Final

import psycopg2
import pytest

from iot_platform.database.edition import version_numbers
from iot_platform.local.install import cached, debian_mirror, run_logged
from iot_platform.local.passwords import ROLES, Passwords
from iot_platform.local.ports import free_ports
from iot_platform.local.postgresql_install import install_rootfs
from iot_platform.local.postgresql_roles import create_database, create_roles
from iot_platform.local.program import Program, base_environment
from iot_platform.local.supervisor import Supervisor
from iot_platform.settings import Settings
from iot_platform_tests.support.servers.stack import Servers
from iot_platform_tests.support.waiting import eventually

VARIABLE: Final = "IOT_TEST_UPDATE_ROOT"
"""Names such a root file system in place of the one that is made here: of other releases, or of TimescaleDB's Community edition."""
NAME: Final = "postgresql-updated"
DATABASE: Final = "iot"
PASSWORD: Final = "postgres"
# Debian has no release of TimescaleDB for two of PostgreSQL, which pg_upgrade asks for: that of this Debian is built for PostgreSQL of the
# one before, without telemetry as Debian does, because that makes other functions.
_MAKE: Final = """set -e
root=$1
mount --rbind /dev "$root/dev"; mount --rbind /proc "$root/proc"
inside() { chroot "$root" "$@"; }
inside apt-get update
inside apt-get install -y --no-install-recommends postgresql-15 postgresql-server-dev-15 gcc libc6-dev cmake make libssl-dev libkrb5-dev \
    dpkg-dev
inside sh -ec 'mkdir /src && cd /src && apt-get source --only-source timescaledb && cd timescaledb-*/ &&
    cmake -S . -B build -DCMAKE_BUILD_TYPE=Release -DAPACHE_ONLY=ON -DUSE_TELEMETRY=OFF -DREGRESS_CHECKS=OFF -DTAP_CHECKS=OFF \
        -DWARNINGS_AS_ERRORS=OFF -DGENERATE_DOWNGRADE_SCRIPT=OFF -DPG_CONFIG=/usr/lib/postgresql/15/bin/pg_config &&
    cmake --build build && cmake --install build && rm -r /src'
inside apt-get clean
"""
_ENTER: Final = """set -e
root=$1 data=$2; shift 2
mount --bind "$data" "$root/srv"
mount --rbind /dev "$root/dev"; mount --rbind /proc "$root/proc"
exec chroot --userspec=postgres:postgres "$root" sh -ec 'cd /srv && exec "$@"' sh "$@"
"""


@dataclass
class UpdateRoot:
    """`data` holds a cluster for each PostgreSQL, in a folder named by its major version; it is /srv to them."""

    root: Path
    data: Path
    supervisor: Supervisor
    port: int = field(default_factory=lambda: free_ports(1)[0])

    @property
    def majors(self) -> list[int]:
        """Of the releases of PostgreSQL that have TimescaleDB, oldest first."""
        return sorted(int(path.parent.parent.name) for path in self.root.glob("usr/share/postgresql/*/extension/timescaledb.control"))

    def binaries(self, major: int) -> str:
        """Folder of its programs."""
        return f"/usr/lib/postgresql/{major}/bin"

    def run(self, major: int, program: str, *arguments: str) -> str:
        """A program of PostgreSQL as its user, in /srv, which must be a success; what it printed."""
        command = self._inside(f"{self.binaries(major)}/{program}", *arguments)
        shown = subprocess.run(command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        logs = (log.read_text("utf-8", "replace") for log in self.data.glob(f"{major}/pg_upgrade_output.d/*/log/*.log"))
        assert shown.returncode == 0, "\n".join([shown.stdout, *(log[-2000:] for log in logs if "rror" in log)])
        return shown.stdout

    def initialize(self, major: int) -> None:
        """A new cluster, as the platform's server has it; in place of one that is there."""
        shutil.rmtree(self.data / str(major), ignore_errors=True)
        (self.data / "password").write_text(PASSWORD)
        login = ("-U", "postgres", "--auth-local=trust", "--auth-host=scram-sha-256", "--pwfile=/srv/password")
        self.run(major, "initdb", "-D", str(major), *login, "--encoding=UTF8", "--locale=C.UTF-8", "--data-checksums", "--no-sync")
        with (self.data / str(major) / "postgresql.conf").open("a") as file:
            file.write("shared_preload_libraries = 'timescaledb'\ntimescaledb.telemetry_level = off\nlisten_addresses = '127.0.0.1'\n")
            file.write("unix_socket_directories = '/srv'\nfsync = off\ntimezone = 'UTC'\nmax_connections = 100\n")

    def start(self, major: int) -> None:
        """And wait until it serves."""
        command = self._inside(f"{self.binaries(major)}/postgres", "-D", str(major), "-p", str(self.port))
        self.supervisor.apply(Program(NAME, command, self.data, base_environment(self.data), stop_signal="INT", stop_seconds=60))
        eventually(self._serves, 120, lambda: self.supervisor.log_file(NAME).read_text("utf-8", "replace")[-2000:])

    def stop(self) -> None:
        """Fast: sessions are ended, everything is on the disk."""
        self.supervisor.stop(NAME)

    def upgrade(self, *options: str) -> str:
        """pg_upgrade from the oldest to the newest; what it printed."""
        old, new = self.majors[0], self.majors[-1]
        folders = ("-b", self.binaries(old), "-B", self.binaries(new), "-d", str(old), "-D", str(new))
        return self.run(new, "pg_upgrade", *folders, "-U", "postgres", "-s", "/srv", *options)

    def url(self, role: str, database: str = DATABASE) -> str:
        """One of the stack's roles."""
        return f"postgresql://{role}:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def execute(self, statement: str, database: str = DATABASE) -> list[tuple[object, ...]]:
        """As superuser, the first statement of its session."""
        with closing(psycopg2.connect(self.url("postgres", database))) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return cursor.fetchall() if cursor.description else []

    def prepare(self) -> None:
        """The platform's roles and its database, with the oldest TimescaleDB that there is."""
        create_roles(self.url("postgres", "postgres"), Passwords(dict.fromkeys(ROLES, PASSWORD)))
        self.execute(f"CREATE DATABASE {DATABASE} OWNER iot_migrator", "postgres")
        self.execute(f"CREATE EXTENSION timescaledb VERSION '{self.offered()[0]}'")
        create_database(self.url("postgres", "postgres"), DATABASE)

    def offered(self) -> list[str]:
        """TimescaleDB's releases of which the server has files, oldest first."""
        found = self.execute("SELECT version FROM pg_available_extension_versions WHERE name = 'timescaledb'", "postgres")
        return sorted((str(version) for (version,) in found), key=version_numbers)

    def settings(self, settings: Settings) -> Settings:
        """Those of a platform on this server."""
        roles = {"database_url": "iot_writer", "database_admin_url": "iot_migrator", "database_reader_url": "iot_reader"}
        return settings.model_validate(settings.model_dump(exclude_unset=True) | {name: self.url(role) for name, role in roles.items()})

    def _serves(self) -> bool:
        try:
            self.execute("SELECT 1", "postgres")
        except psycopg2.OperationalError:
            return False
        return True

    def _inside(self, *command: str) -> tuple[str, ...]:
        enter = ("unshare", "--mount", "--propagation", "private", "sh", "-c", _ENTER, "sh")
        return (*enter, str(self.root), str(self.data), *command)


@pytest.fixture
def update_root(servers: Servers, tmp_path: Path) -> Iterator[UpdateRoot]:
    """With the platform's roles and database on the older PostgreSQL, which runs."""
    if os.geteuid() != 0:
        pytest.skip("makes a root file system and runs servers from it: as root only")
    named = os.environ.get(VARIABLE)
    root = Path(named) if named else _made(tmp_path)
    data = Path(mkdtemp(prefix="iot-update-"))  # PostgreSQL's user may not enter pytest's folders
    users = (line.split(":") for line in (root / "etc/passwd").read_text().splitlines())
    uid, gid = next((int(user[2]), int(user[3])) for user in users if user[0] == "postgres")
    os.chown(data, uid, gid)
    made = UpdateRoot(root, data, servers.supervisor)
    try:
        made.initialize(made.majors[0])
        made.start(made.majors[0])
        made.prepare()
        yield made
    finally:
        made.stop()
        made.supervisor.remove(NAME)
        shutil.rmtree(data)


def _made(folder: Path) -> Path:
    cache, log = Settings().cache_dir, folder / "install.log"
    target = cache / "postgresql-15-17"
    plain = cache / "postgresql-trixie"
    install_rootfs(plain, log, lambda _: None)
    with cached(target, lambda _: None) as made:
        if made is not None:
            run_logged(["cp", "-a", f"{plain}/.", str(made)], log, lambda _: None, what="copying the root file system")
            mirror = debian_mirror()
            (made / "etc/apt/sources.list.d/update.list").write_text(f"deb {mirror} bookworm main\ndeb-src {mirror} trixie main\n", "ascii")
            command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _MAKE, "sh", str(made)]
            run_logged(command, log, lambda _: None, what="building TimescaleDB")
    return target
