"""A disk whose power can be cut: a file system of ours (FUSE, root only) that then forgets everything that was not synced.

What is written, by `write` or through a mapping, every process sees at once; it outlives a cut once `fsync`, `fdatasync`, `msync(MS_SYNC)`
or a write with O_SYNC or O_DSYNC has returned (a sync takes its time, and a cut in the middle of one finds nothing synced). Neither
`sync`, `sync_file_range` nor closing counts. Names (create, rename, unlink, mkdir, link) outlive it with a `journal`, as of ext4 and XFS,
once any file or folder has been synced after them; on a `strict` disk, which promises no more than POSIX does, once their folder has been
(of a rename between folders, each half with its own). Owners, modes and times are durable at once.

Real disks may have written some of the rest, too: `back` lets a random part of it survive, seeded: names up to some moment, whole pages,
pages of which some sectors are old, sizes in between. Not covered: disks that say "synced" and lie.
"""

import os
import select
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Literal, cast

from iot_platform.drills.rig import small_disk
from iot_platform.local.install import Note, which

SOURCE: Final = Path(__file__).with_name("power_disk.c")
PACKAGES: Final = ("gcc", "libc6-dev", "libfuse3-dev", "pkg-config")
SYNC_MICROSECONDS: Final = 2000  # about what a solid-state disk takes
_DEVICE: Final = Path("/dev/fuse")
_STOP_SECONDS: Final = 10
_ANSWER_SECONDS: Final = 60

Names = Literal["journal", "strict"]


class PowerDiskError(Exception):
    """The disk can't be made, or has ended by itself; the message says why. Retry after putting that right."""


def obstacle() -> str:
    """Why there can be no such disk here; "" when there can."""
    if reason := small_disk.obstacle():
        return reason.replace("a small disk", "a disk without power")
    if not _DEVICE.exists():
        return f"a disk without power is a file system of its own, which needs {_DEVICE} (docker run --device {_DEVICE})"
    if which("gcc") is None or which("pkg-config") is None or subprocess.run(["pkg-config", "fuse3"], check=False).returncode != 0:
        return f"a disk without power must be compiled: apt-get install {' '.join(PACKAGES)}"
    return ""


@dataclass(frozen=True)
class Fate:
    """What became of all that was not synced: files and pages, of which `survived` whole and `torn` in part; names, likewise."""

    files: int = 0
    pages: int = 0
    survived: int = 0
    torn: int = 0
    names: int = 0
    names_survived: int = 0

    def __add__(self, other: "Fate") -> "Fate":
        return Fate(*(mine + theirs for mine, theirs in zip(vars(self).values(), vars(other).values(), strict=True)))

    def __str__(self) -> str:
        return (
            f"unsynced were {self.pages:,} pages of {self.files:,} files, of which {self.survived:,} survived and {self.torn:,} in part; "
            f"{self.names:,} changes of names, of which {self.names_survived:,} survived"
        )


class PowerDisk:
    """The mounted disk, empty at first. One caller at a time."""

    def __init__(self, folder: Path, process: "subprocess.Popen[str]") -> None:
        self.folder = folder
        self._process = process
        self._commands, self._answers = cast("IO[str]", process.stdin), cast("IO[str]", process.stdout)
        self._answer("ready")

    @property
    def pid(self) -> int:
        """Of the process that is the disk."""
        return self._process.pid

    def sync(self) -> None:
        """All that is there now outlives a cut."""
        self._send("sync")
        self._answer("synced")

    def cut(self) -> None:
        """On return the power is off: nothing more is written, every request ends with EIO. The caller kills the processes
        that use the disk."""
        self._send("cut")
        self._answer("cut")

    def back(self, seed: int, survive_percent: int = 0) -> Fate:
        """Mount anew what is on the disk. `survive_percent`: how likely it is for a file, and for names, that unsynced changes are."""
        self._send(f"back {seed} {survive_percent}")
        return Fate(*map(int, self._answer("back")))

    def _send(self, command: str) -> None:
        try:
            self._commands.write(f"{command}\n")
            self._commands.flush()
        except OSError as error:
            raise PowerDiskError(f"the disk at {self.folder} has ended by itself") from error

    def _answer(self, expected: str) -> list[str]:
        if not select.select([self._answers], [], [], _ANSWER_SECONDS)[0]:
            raise PowerDiskError(f"the disk at {self.folder} does not answer")
        word, *figures = self._answers.readline().split() or [""]
        if word != expected:
            raise PowerDiskError(f"the disk at {self.folder} has ended by itself (with {self._process.wait(_STOP_SECONDS)})")
        return figures


@contextmanager
def power_disk(
    folder: Path, work: Path, *, names: Names = "journal", sync_microseconds: int = SYNC_MICROSECONDS, note: Note = lambda _text: None
) -> Iterator[PowerDisk]:
    """Mount a disk at `folder`, which is made, for the length of the block; what it holds then is gone. `work`: for the compiled program.

    Raises:
        PowerDiskError: see `obstacle`.
    """
    if reason := obstacle():
        raise PowerDiskError(reason)
    small_disk.remove_leftovers()
    program = _compile(work, note)
    folder.mkdir(parents=True)
    process = subprocess.Popen(
        [str(program), str(folder), small_disk.mount_source(), names, str(sync_microseconds)],
        stdin=subprocess.PIPE,  # its end ends the disk, whatever happens to us
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for the drill, which ends it
    )
    try:
        yield PowerDisk(folder, process)
    finally:
        _end(process)
        subprocess.run(["umount", "-l", str(folder)], check=False, capture_output=True)  # if it was killed
        folder.rmdir()


def _end(process: "subprocess.Popen[str]") -> None:
    with suppress(BrokenPipeError):  # it has ended by itself
        cast("IO[str]", process.stdin).close()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    cast("IO[str]", process.stdout).close()


def _compile(work: Path, note: Note) -> Path:
    note("compiling the disk without power")
    work.mkdir(parents=True, exist_ok=True)
    program = work / "power_disk"
    flags = subprocess.run(["pkg-config", "--cflags", "--libs", "fuse3"], check=True, capture_output=True, text=True).stdout.split()
    command = ["gcc", "-std=gnu2x", "-O2", "-o", str(program), str(SOURCE), *flags]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"})
    if done.returncode != 0:
        raise PowerDiskError(f"{SOURCE.name} does not compile (apt-get install {' '.join(PACKAGES)}): {done.stderr.strip()[-400:]}")
    return program
