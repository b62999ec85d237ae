"""Packages of any Debian release, unpacked with all that they need into a folder of the cache, and run there by chroot."""

import os
import shutil
import subprocess
from pathlib import Path

from iot_platform.local.errors import LocalStackError
from iot_platform.local.install import NETWORK, Note, cached, debian_mirror, run_logged, which

_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
# The data folder is at /srv inside. The mounts vanish with the process.
_ENTER = """set -e
root=$1 data=$2; shift 2
mount --bind "$data" "$root/srv"; mount --rbind /dev "$root/dev"; mount --rbind /proc "$root/proc"; mount -t tmpfs tmpfs "$root/tmp"
exec chroot "$root" "$@"
"""


def require_root() -> None:
    """Raise LocalStackError where there is no apt, or we may not mount and chroot."""
    if which("apt-get") is None:
        raise LocalStackError("there is no apt-get on this machine")
    if os.geteuid() != 0 or subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True).returncode != 0:
        raise LocalStackError("only root, with the right to mount, can run another Debian release's packages")


def install(release: str, packages: tuple[str, ...], target: Path, log: Path, note: Note, *, user: str) -> Path:
    """A root file system with the packages of a release and their dependencies, unpacked only: no script of theirs has run. User 0 of it
    has the given name.

    The machine's own apt is left alone; of it, mirror, keyring and proxies are used.
    """
    with cached(target, note) as new:
        if new is not None:
            require_root()
            options = _apt_options(new / "apt", release)
            run_logged(["apt-get", *options, "update"], log, note, what="apt-get update", hint=NETWORK)
            fetch = ["apt-get", *options, "--yes", "--download-only", "install", "~E", *packages]  # ~E: what every package may rely on
            run_logged(fetch, log, note, what="apt-get install", hint=NETWORK)
            _unpack(sorted((new / "apt/cache/archives").glob("*.deb")), new, user)
            shutil.rmtree(new / "apt")
    return target


def inside(root: Path, data: Path, *command: str) -> tuple[str, ...]:
    """The command that runs another one in the root file system, which sees the data folder as /srv."""
    return ("unshare", "--mount", "--propagation", "private", "sh", "-c", _ENTER, "sh", str(root), str(data), *command)


def _apt_options(folder: Path, release: str) -> list[str]:
    """apt with state of its own in which nothing is installed, so that it fetches every dependency."""
    for name in ("state/lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True)
    (folder / "status").touch()
    signed = f"[signed-by={_KEYRING}] " if Path(_KEYRING).exists() else ""
    (folder / "sources.list").write_text(f"deb {signed}{debian_mirror()} {release} main\n", "ascii")
    values = {
        "Dir::State": folder / "state",
        "Dir::State::status": folder / "status",
        "Dir::Cache": folder / "cache",
        "Dir::Etc::sourcelist": folder / "sources.list",
        "Dir::Etc::sourceparts": "-",
        "Dir::Etc::preferencesparts": "-",
        "APT::Sandbox::User": "root",
        "APT::Install-Recommends": "false",
        "Acquire::Languages": "none",
    }
    return [part for name, value in values.items() for part in ("-o", f"{name}={value}")]


def _unpack(archives: list[Path], root: Path, user: str) -> None:
    for name in ("bin", "sbin", "lib", "lib64"):  # as every release since 12 has it once it is set up
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    for archive in archives:
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(archive)], stdout=subprocess.PIPE) as source:
            subprocess.run(["tar", "-x", "-C", str(root), "--keep-directory-symlink"], stdin=source.stdout, check=True)
        if source.returncode != 0:
            raise LocalStackError(f"{archive.name} can't be unpacked")
    for name in ("srv", "dev", "proc", "tmp", "etc"):
        (root / name).mkdir(exist_ok=True)
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n", "ascii")
    (root / "etc/passwd").write_text(f"{user}:x:0:0::/srv:/bin/sh\n", "ascii")
    (root / "etc/group").write_text("root:x:0:\n", "ascii")
    subprocess.run([which("ldconfig") or "ldconfig", "-r", str(root)], check=True, capture_output=True)
