"""Finding a PostgreSQL with TimescaleDB on this machine, or making a root file system that has one."""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from iot_platform.local.errors import LocalStackError
from iot_platform.local.install import NETWORK, Note, cached, debian_mirror, folder_lock, run_logged, which

RELEASE = "trixie"  # the Debian release that has both packages
PACKAGES = ("postgresql-17", "postgresql-17-timescaledb")
NEWEST_RELEASE = "forky"  # with TimescaleDB's newest packages; for tests
NEWEST_PACKAGES = ("postgresql-18", "postgresql-18-timescaledb")
BACKUP_PACKAGE = "pgbackrest"
_MINIMUM_TIMESCALEDB = (2, 19, 1)  # earlier ones drop rows on ON CONFLICT into compressed chunks

_IN_ROOTFS = """set -e
root=$1; shift
mount --rbind /dev "$root/dev"; mount --rbind /proc "$root/proc"
chroot "$root" apt-get update
chroot "$root" apt-get install -y --no-install-recommends "$@"
chroot "$root" apt-get clean
"""


@dataclass(frozen=True)
class Installation:
    """A PostgreSQL below `root`; `bin_dir` is a path inside it, uid and gid those of its user postgres."""

    root: Path
    bin_dir: str
    major: str
    uid: int
    gid: int


def find_installed(root: Path = Path("/")) -> Installation | None:
    """The newest PostgreSQL below `root` with a TimescaleDB that is new enough; None without one."""
    candidates = [(path, root / "usr/share/postgresql" / path.parent.name / "extension") for path in root.glob("usr/lib/postgresql/*/bin")]
    if root == Path("/") and (command := which("pg_config")):
        shown = subprocess.run([command, "--bindir", "--sharedir"], check=False, capture_output=True, text=True).stdout.split("\n")
        candidates += [(Path(shown[0]), Path(shown[1]) / "extension")] if len(shown) > 1 else []
    usable = [
        (_major(bin_dir), bin_dir) for bin_dir, extensions in candidates if _has_timescaledb(extensions) and (bin_dir / "initdb").exists()
    ]
    if not usable:
        return None
    major, bin_dir = max(usable, key=lambda item: int(item[0]))
    uid, gid = _postgres_user(root)
    return Installation(root, f"/{bin_dir.relative_to(root)}", major, uid, gid)


def install_rootfs(target: Path, log: Path, note: Note, *, newest: bool = False) -> None:
    """Make a Debian root file system with PostgreSQL and TimescaleDB at `target`, once, from this machine's own apt mirror. Needs root."""
    release, packages = (NEWEST_RELEASE, NEWEST_PACKAGES) if newest else (RELEASE, PACKAGES)
    if target.exists():
        return
    with cached(target, note) as folder:
        if folder is None:
            return
        note("downloading PostgreSQL and TimescaleDB (a Debian root file system, 700 MB on disk)")
        mirror = debian_mirror()
        debootstrap = which("debootstrap")
        if debootstrap is None:
            raise LocalStackError("debootstrap is not installed. Run as root: apt-get install debootstrap")
        private = ["unshare", "--mount", "--propagation", "private"]
        run_logged([*private, debootstrap, "--variant=minbase", RELEASE, str(folder), mirror], log, note, what="debootstrap", hint=NETWORK)
        _configure(folder)
        if release != RELEASE:  # not made of it: debootstrap and keys need not know it; a mirror may stand still
            (folder / "etc/apt/sources.list").write_text(f"deb [check-valid-until=no] {mirror} {release} main\n", "ascii")
        run_logged([*private, "sh", "-c", _IN_ROOTFS, "sh", str(folder), *packages], log, note, what="installing PostgreSQL", hint=NETWORK)


def install_pgbackrest(target: Path, log: Path, note: Note) -> None:
    """Add pgBackRest to a root file system that `install_rootfs` made, once. Servers that run from it are not disturbed. Needs root."""
    with folder_lock(target, note):
        if (target / "usr/bin/pgbackrest").exists():
            return
        note("downloading pgBackRest")
        command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _IN_ROOTFS, "sh", str(target), BACKUP_PACKAGE]
        run_logged(command, log, note, what="installing pgBackRest", hint=NETWORK)


def _configure(folder: Path) -> None:
    """Name resolution and apt's proxies as on this machine; no services, no cluster of the package's own."""
    for name in ("resolv.conf", "hosts"):
        shutil.copyfile(f"/etc/{name}", folder / "etc" / name)
    for path in (Path("/etc/apt/apt.conf"), *Path("/etc/apt/apt.conf.d").glob("*")):
        if path.is_file() and "proxy" in path.read_text("utf-8", "replace").lower():
            shutil.copyfile(path, folder / "etc/apt/apt.conf.d" / path.name)
    policy = folder / "usr/sbin/policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 101\n", "ascii")
    policy.chmod(0o755)
    create = folder / "etc/postgresql-common/createcluster.d/iot-platform.conf"
    create.parent.mkdir(parents=True)
    create.write_text("create_main_cluster = false\n", "ascii")


def _major(bin_dir: Path) -> str:
    if bin_dir.parent.name.isdigit():
        return bin_dir.parent.name
    shown = subprocess.run([bin_dir / "postgres", "--version"], check=False, capture_output=True, text=True).stdout
    found = re.search(r"\d+", shown)
    return found[0] if found else "0"


def _has_timescaledb(extensions: Path) -> bool:
    try:
        text = (extensions / "timescaledb.control").read_text("utf-8")
    except OSError:
        return False
    found = re.search(r"default_version\s*=\s*'(\d+)\.(\d+)\.(\d+)", text)
    return found is not None and tuple(map(int, found.groups())) >= _MINIMUM_TIMESCALEDB


def _postgres_user(root: Path) -> tuple[int, int]:
    for line in (root / "etc/passwd").read_text("utf-8").splitlines():
        fields = line.split(":")
        if fields[0] == "postgres":
            return int(fields[2]), int(fields[3])
    return os.getuid(), os.getgid()
