"""Connection numbers: strictly increasing per MQTT client id, also across restarts, and durable before first use."""

import fcntl
import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from ingest_daemon.errors import SettingsError


class ConnectionNumbers:
    """Hands out max(last + 1, unix time) and has it on disk before it returns; holds a lock so that no second daemon does the same.

    A lost state directory is survivable: numbers follow the clock then, and still grow as long as the clock wasn't set back.
    """

    def __init__(self, state_dir: Path, client_id: str, clock: Callable[[], float] = time.time) -> None:
        """Raises SettingsError when the directory can't be used or another daemon holds it."""
        self._clock = clock
        name = f"connection-{quote(client_id, safe='')}"
        if len(name) > 200:  # a file name holds 255 bytes
            name = f"{name[:100]}-{hashlib.sha256(client_id.encode()).hexdigest()}"
        self._path = state_dir / name
        try:
            state_dir.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(state_dir / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._lock)
            raise SettingsError(
                f"IOT_INGEST_CLIENT_ID: a daemon with this client id already runs on {state_dir} (IOT_INGEST_STATE_DIR); each needs its own"
            ) from error
        except OSError as error:
            raise SettingsError(f"IOT_INGEST_STATE_DIR: can't write {self._path}: {error.strerror}") from error
        self.last = self._read()

    def _read(self) -> int | None:
        try:
            return int(self._path.read_text("ascii"))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise SettingsError(f"IOT_INGEST_STATE_DIR: {self._path} holds no number; remove it if you trust this host's clock") from error

    def next(self) -> int:
        """A number greater than every earlier one; durable on return. Blocks for two fsyncs. Raises SettingsError when the disk won't."""
        number = max((self.last or 0) + 1, int(self._clock()))
        try:
            self._write(number)
        except OSError as error:
            raise SettingsError(f"IOT_INGEST_STATE_DIR: can't write {self._path}: {error.strerror}") from error
        self.last = number
        return number

    def _write(self, number: int) -> None:
        partial = self._path.with_name(f"{self._path.name}.new")
        with partial.open("w", encoding="ascii") as file:
            file.write(str(number))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self._path)
        directory = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def close(self) -> None:
        """Give up the lock."""
        os.close(self._lock)
