"""What the daemon remembers across restarts, per MQTT client id: the last connection number, its subscriptions, MQTT version, habit."""

import contextlib
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from urllib.parse import quote

from ingest_daemon.errors import SettingsError


def file_name(kind: str, client_id: str) -> str:
    """Name of a daemon's file in the state directory."""
    name = quote(client_id, safe="")
    if len(name) > 200:  # a file name holds 255 bytes
        name = f"{name[:100]}-{hashlib.sha256(client_id.encode()).hexdigest()}"
    return f"{kind}-{name}"


def boot() -> int:
    """A number that changes when the host starts anew; 0 where that is unknown. What was written but not synced is gone then."""
    text = read(Path("/proc/sys/kernel/random/boot_id"))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7]) if text else 0


class StateDir:
    """Files that are on disk before the call that writes them returns; locked, so that no second daemon uses them.

    A lost directory is survivable: connection numbers follow the clock then, and still grow as long as it wasn't set back;
    a changed topic filter leaves the old subscription at the broker.
    """

    def __init__(self, folder: Path, client_id: str, clock: Callable[[], float] = time.time) -> None:
        """Raises SettingsError when the directory can't be used or another daemon holds it."""
        self._clock = clock
        self.spool_file = folder / f"{file_name('spool', client_id)}.sqlite"
        self._number_file = folder / file_name("connection", client_id)
        self._subscription_file = folder / file_name("subscription", client_id)
        self.rhythm_file = folder / file_name("rhythm", client_id)
        self._protocol_file = folder / file_name("protocol", client_id)
        self._habit_file = folder / file_name("habit", client_id)
        self.unacknowledged_file = folder / file_name("unacknowledged", client_id)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for parent in folder.absolute().parents:
                with contextlib.suppress(OSError):  # where we may not, somebody else made what is in it
                    sync(parent)  # else a power cut could take the new folder away, with all that was synced in it
            self._lock = os.open(folder / file_name("lock", client_id), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._lock)
            raise SettingsError(
                f"IOT_INGEST_CLIENT_ID: a daemon with this client id already runs on {folder} (IOT_INGEST_STATE_DIR); each needs its own"
            ) from error
        except OSError as error:
            raise SettingsError(f"IOT_INGEST_STATE_DIR: can't write {folder}: {error.strerror}") from error
        self.last_connection = self._read_number()
        self.subscriptions = _subscriptions(read(self._subscription_file))
        """All that the broker may hold for us; None before the first one."""
        self.habit = read(self._habit_file) or None

    def _read_number(self) -> int | None:
        text = read(self._number_file)
        try:
            return None if text is None else int(text)
        except ValueError as error:
            hint = f"{self._number_file} holds no number; remove it if you trust this host's clock"
            raise SettingsError(f"IOT_INGEST_STATE_DIR: {hint}") from error

    def next_connection(self) -> int:
        """max(last + 1, unix time in µs), durable on return. Blocks for up to two fsyncs. Raises SettingsError when the disk won't.

        Needs no room on the disk but the first time: a full one must not keep the daemon from a broker and a Kafka that are well.
        """
        number = max((self.last_connection or 0) + 1, int(self._clock() * 1e6))
        text = str(number)
        if self.last_connection is None or not _overwrite(self._number_file, text):
            write(self._number_file, text)
        self.last_connection = number
        return number

    def remember_subscriptions(self, subscriptions: Iterable[str]) -> None:
        """Note all that the broker may hold for us: before it is asked for one more, and after it gave one up.

        Raises SettingsError when the disk won't.
        """
        found = tuple(dict.fromkeys(subscriptions))
        if self.subscriptions is None or set(found) != set(self.subscriptions):
            write(self._subscription_file, json.dumps(found, ensure_ascii=False))
            self.subscriptions = found

    def protocol_at(self, address: str) -> str | None:
        """The MQTT version in which the broker at this address accepted us last, as IOT_MQTT_PROTOCOL has it; None if it never did."""
        text = read(self._protocol_file)
        if text is None:
            return None if self.last_connection is None else "5"  # up to 0.1 there was no other
        version, _, known = text.partition(" ")
        return version if known == address else None

    def remember_protocol(self, version: str, address: str) -> None:
        """Note that this broker accepted us in this MQTT version. Raises SettingsError when the disk won't."""
        if read(self._protocol_file) != f"{version} {address}":
            write(self._protocol_file, f"{version} {address}")

    def remember_habit(self, habit: str | None) -> None:
        """Note what was learnt of the MQTT broker. Where the disk won't, it is known until the process ends."""
        self.habit = habit
        with contextlib.suppress(SettingsError):
            write(self._habit_file, habit or "")

    def close(self) -> None:
        """Give up the lock."""
        os.close(self._lock)


def _subscriptions(text: str | None) -> tuple[str, ...] | None:
    """A JSON list; up to 0.1 the file held one filter as it is."""
    if text is None:
        return None
    with contextlib.suppress(ValueError):
        found = json.loads(text)
        if isinstance(found, list) and all(isinstance(item, str) for item in found):
            return tuple(found)
    return (text,)


def read(path: Path) -> str | None:
    """A file's text; None if there is none."""
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:
        return None


def _overwrite(path: Path, text: str) -> bool:
    """Change a file in place where the length allows it: a few bytes of one sector are old or new after a power cut, too."""
    data = text.encode()
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            if os.fstat(file).st_size != len(data) or os.pwrite(file, data, 0) != len(data):
                return False
            os.fsync(file)
        finally:
            os.close(file)
    except OSError:
        return False  # `_write` finds out why
    return True


def write(path: Path, text: str) -> None:
    """Replace a file; old or new content survives a power cut, never a mixture."""
    partial = path.with_name(f"{path.name}.new")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        sync(path.parent)
    except OSError as error:
        raise SettingsError(f"IOT_INGEST_STATE_DIR: can't write {path}: {error.strerror}") from error


def sync(folder: Path) -> None:
    """The names in it survive a power cut from now on. Blocks. Raises OSError."""
    directory = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
