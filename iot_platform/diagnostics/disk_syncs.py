"""How fast a disk syncs: what a Kafka that syncs before it confirms, and the spool, can do on it."""

import os
import tempfile
import time
from pathlib import Path
from typing import Final

BLOCK_BYTES: Final = 4096


def syncs_per_second(folder: Path, *, seconds: float = 1.0, most: int = 2000) -> float:
    """Writes of 4 KiB that reach the disk in a second, one after the other, in a file of its own in this folder, removed afterwards.

    Ends after so many seconds or writes, at least one.

    Raises:
        OSError: the folder can't be written to.
    """
    block = os.urandom(BLOCK_BYTES)
    with tempfile.TemporaryFile(dir=folder) as file:
        os.write(file.fileno(), block)  # the first sync also makes the file
        os.fdatasync(file.fileno())
        count, began = 0, time.monotonic()
        while True:
            os.write(file.fileno(), block)
            os.fdatasync(file.fileno())
            count += 1
            passed = time.monotonic() - began
            if passed >= seconds or count >= most:
                return count / max(passed, 1e-6)
