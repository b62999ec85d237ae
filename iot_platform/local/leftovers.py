"""Processes of a local stack that outlived their supervisor: found by the mark in their environment, and ended."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from iot_platform.local.program import MARKER

_GRACE_SECONDS = 8


def find(local_dir: Path) -> list[int]:
    """Process ids that carry this stack's mark (as far as this user may see)."""
    wanted = f"{MARKER}={local_dir}".encode()
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            with suppress(OSError):  # ended meanwhile, or somebody else's
                if wanted in (process / "environ").read_bytes().split(b"\0"):  # empty for a zombie
                    found.append(int(process.name))
    return found


def end(local_dir: Path) -> int:
    """End them, politely and then not; returns how many there were."""
    pids = find(local_dir)
    for pid in pids:
        with suppress(OSError):
            # PostgreSQL takes SIGTERM as "when the last client has left".
            postgres = (Path("/proc") / str(pid) / "comm").read_text().strip() == "postgres"
            os.kill(pid, signal.SIGINT if postgres else signal.SIGTERM)
    deadline = time.monotonic() + _GRACE_SECONDS
    while find(local_dir):
        if time.monotonic() > deadline:
            for pid in find(local_dir):
                with suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)
    return len(pids)
