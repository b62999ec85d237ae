"""A wall clock for one program that can be set while it runs: the machine's own clock, which everything else uses, is left alone."""

import mmap
import platform
import struct
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

from iot_platform.local.install import Note, which

SOURCE = Path(__file__).with_name("fake_clock.c")
COMPILER = "gcc"
PACKAGES = {COMPILER: "compiles the clock that a drill sets wrong", "libc6-dev": "the C library's headers, for the same"}


class FakeClockError(Exception):
    """This machine can't have a fake clock; the message says what it lacks. Retry after installing that."""


def missing_packages() -> dict[str, str]:
    """Debian packages that a fake clock needs and the machine lacks → why. FakeClockError where packages can't help."""
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        raise FakeClockError("a fake clock needs Linux with glibc 2.30 or newer")
    return {} if which(COMPILER) and Path("/usr/include/threads.h").exists() else PACKAGES


class FakeClock:
    """Compiles the clock into `folder`. A program that is started with `environment` follows `set`, at once and while it runs;
    without another word it is as far off as `set` said before the program's start."""

    def __init__(self, folder: Path, note: Note = lambda _text: None) -> None:
        """Raises FakeClockError."""
        folder.mkdir(parents=True, exist_ok=True)
        self._library, file = folder / "fake_clock.so", folder / "fake_clock"
        note("compiling the fake clock")
        self._compile()
        file.unlink(missing_ok=True)  # never truncated: a program of an earlier drill may have it mapped
        file.write_bytes(bytes(8))
        with file.open("r+b") as opened:
            self._offset = mmap.mmap(opened.fileno(), 8)  # one aligned word: the program sees the old value or the new one
        self.environment = {"LD_PRELOAD": str(self._library), "IOT_FAKE_CLOCK": str(file)}

    def _compile(self) -> None:
        command = [which(COMPILER) or COMPILER, "-shared", "-fPIC", "-O2", "-o", str(self._library), str(SOURCE)]
        try:
            done = subprocess.run(command, check=False, capture_output=True, text=True)
        except OSError as error:
            raise FakeClockError(f"no C compiler: apt-get install {' '.join(PACKAGES)}") from error
        if done.returncode != 0:
            raise FakeClockError(f"{SOURCE.name} does not compile (apt-get install {' '.join(PACKAGES)}): {done.stderr.strip()[-400:]}")

    def set(self, seconds: float) -> None:
        """How far the program's clock is ahead of the machine's; negative: behind."""
        self._offset[:] = struct.pack("=q", round(seconds * 1e9))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._offset.close()
