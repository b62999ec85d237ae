"""A disk that a drill can fill for real: a small tmpfs over a folder (root only), removed again whatever happens to the drill."""

import errno
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_MARK = "iot-drill"  # a mount's source: iot-drill-<process id>-<that process's start time>
_BALLAST = "ballast"
_CHUNK_BYTES = 1 << 16
_UNMOUNT_SECONDS = 10


class SmallDiskError(Exception):
    """A mount could not be made, filled or removed; the message says why. Retry after putting that right."""


def obstacle() -> str:
    """Why there can be no small disks here; "" when there can."""
    if os.geteuid() != 0:
        return "a small disk is a mount, which needs root"
    tried = subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True)
    return "" if tried.returncode == 0 else "a small disk is a mount, and this container may not mount (CAP_SYS_ADMIN)"


class SmallDisk:
    """A mounted folder of limited size."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def free_bytes(self) -> int:
        """What can still be written."""
        return shutil.disk_usage(self.folder).free

    def fill(self) -> None:
        """Write ballast until nothing more can be written."""
        with (self.folder / _BALLAST).open("ab", buffering=0) as file:
            size = _CHUNK_BYTES
            while size:
                try:
                    file.write(bytes(size))
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    size //= 2

    def make_room(self) -> None:
        """Remove the ballast."""
        (self.folder / _BALLAST).unlink(missing_ok=True)


@contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[SmallDisk]:
    """Move what the folder holds to a disk of that size for the length of the block, and back. No program may use the folder then.

    Raises:
        SmallDiskError: no root, or a program still uses the folder at the end (it keeps the disk for as long as it runs).
    """
    if reason := obstacle():
        raise SmallDiskError(reason)
    remove_leftovers()
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder.with_name(f"{folder.name}.aside")
    folder.rename(aside)
    try:
        folder.mkdir()
        _run("mount", "-t", "tmpfs", "-o", f"size={size_bytes},mode=700", mount_source(), str(folder))
        try:
            move(aside, folder)
            disk = SmallDisk(folder)
            try:
                yield disk
            finally:
                disk.make_room()
                move(folder, aside)
        finally:
            _unmount(folder)
    finally:
        if not folder.is_mount():
            folder.rmdir()
            aside.rename(folder)


def remove_leftovers() -> None:
    """Unmount the disks of processes that are no more."""
    for line in Path("/proc/self/mountinfo").read_text("utf-8").splitlines():
        fields = line.split()
        source = fields[fields.index("-") + 2]
        if source.startswith(f"{_MARK}-"):
            pid, _, started = source.removeprefix(f"{_MARK}-").partition("-")
            if _start_time(pid) != started:
                subprocess.run(["umount", "-l", fields[4].encode().decode("unicode_escape")], check=False, capture_output=True)


def move(source: Path, target: Path, *, holes: bool = False) -> None:
    """Everything in one folder to another, owners (the folder's own too) and all. Without `holes`, what was preallocated stays so."""
    _run("cp", "-a", f"--sparse={'always' if holes else 'never'}", f"{source}/.", str(target))
    for path in source.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _unmount(folder: Path) -> None:
    deadline = time.monotonic() + _UNMOUNT_SECONDS
    while (tried := subprocess.run(["umount", str(folder)], check=False, capture_output=True, text=True)).returncode != 0:
        if time.monotonic() > deadline:
            _run("umount", "-l", str(folder))
            raise SmallDiskError(f"a program still uses {folder}: {tried.stderr.strip()}")
        time.sleep(0.1)


def _run(*command: str) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise SmallDiskError(f"{' '.join(command)}: {done.stderr.strip()}")


def mount_source() -> str:
    """Source of a mount that `remove_leftovers` may unmount once this process is no more."""
    return f"{_MARK}-{os.getpid()}-{_start_time(str(os.getpid()))}"


def _start_time(pid: str) -> str:
    """When a process began, in clock ticks since boot; "" when there is none. With the pid it names one process for good."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[19]
    except OSError:
        return ""
