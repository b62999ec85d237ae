"""Receive times: one for each message, in µs since the epoch, never the same one twice."""

import mmap
import os
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from ingest_daemon.errors import SettingsError
from ingest_daemon.state_dir import file_name

MAX_AHEAD_US = 10_000_000
"""How far stamps may run ahead of a clock that was set back: they then pass a microsecond with each message until it has caught up. A clock
that was set back by more is believed at once: times that were given may come again, and the drain gives each message its own place."""

_FILE_BYTES = 8

log = structlog.get_logger("ingest.receive_clock")


class ReceiveClock:
    """Gives each message max(now, last + 1).

    The last stamp of a batch is in `stamps-<client id>` of the state directory before the batch can leave: one store of eight aligned bytes
    into the page cache, which a kill -9 leaves whole, old or new. A power cut may take the last seconds of it: a clock that goes on is
    beyond them by then.
    """

    def __init__(self, folder: Path, client_id: str, clock: Callable[[], int] = time.time_ns) -> None:
        """Go on behind what an earlier process gave. `clock` gives ns since the epoch.

        Raises:
            SettingsError: the file can't be used. Never retry.
        """
        path = folder / file_name("stamps", client_id)
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                if os.fstat(file).st_size < _FILE_BYTES:
                    os.posix_fallocate(file, 0, _FILE_BYTES)  # its block is there: a full disk can't turn a store into SIGBUS
                    os.fsync(file)
                self._map = mmap.mmap(file, _FILE_BYTES)
            finally:
                os.close(file)
        except OSError as error:
            raise SettingsError(f"IOT_INGEST_STATE_DIR: can't use {path}: {error.strerror}") from error
        self._stored = memoryview(self._map).cast("q")  # an assignment is one store of the machine
        self._clock = clock
        self._last = self._stored[0]

    def take(self, count: int) -> int:
        """The first of `count` stamps, each one µs after the other, that belong to the caller alone from now on."""
        now = self._clock() // 1000
        last = self._last
        if last - now > MAX_AHEAD_US:
            log.warning("clock_set_back", seconds=round((last - now) / 1e6, 3), hint="receive times follow the clock")
            last = now - 1
        first = max(now, last + 1)
        self._last = self._stored[0] = first + count - 1
        return first

    def close(self) -> None:
        """Give up the file."""
        self._stored.release()
        self._map.close()
