"""The spool's file: received messages in a SQLite queue, each on disk for good once `write` has returned."""

import contextlib
import os
import sqlite3
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ingest_daemon.errors import SettingsError, SpoolError
from ingest_daemon.state_dir import sync

APPLICATION_ID = 0x494F5453  # "IOTS"
VERSION = 1
# Left free on the disk, at most an eighth of it: for deletions, which need a few pages before they give any back, and for others.
RESERVE_BYTES = 32 * 1024 * 1024
# An empty file larger than this is shrunk.
TRIM_BYTES = 16 * 1024 * 1024
WAL_BYTES = 64 * 1024 * 1024
MILLION = 1024 * 1024

SCHEMA = """
CREATE TABLE entry (
    id INTEGER PRIMARY KEY,       -- order of arrival
    connection INTEGER NOT NULL,  -- number of the MQTT connection that brought the message
    sequence INTEGER NOT NULL,    -- its number within the connection
    topic BLOB NOT NULL,          -- MQTT topic, the Kafka key
    header BLOB NOT NULL,         -- Kafka header `iot` as packed at arrival
    value BLOB NOT NULL           -- payload
)"""

Row = tuple[int, int, int, bytes, bytes, bytes]
Range = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Oldest:
    """The entry that has waited longest."""

    connection: int
    sequence: int
    received_at_us: int


@dataclass(frozen=True, slots=True)
class Level:
    """How full the spool is."""

    entries: int
    used_bytes: int
    oldest: Oldest | None

    @property
    def first(self) -> tuple[int, int] | None:
        """Connection number and sequence of the oldest entry."""
        return (self.oldest.connection, self.oldest.sequence) if self.oldest else None


NOTHING = Level(0, 0, None)


class SpoolStore:
    """One thread at a time. Every method but `close` may block for as long as the disk does.

    A failed `write` has changed nothing that later calls see, but after a crash its entries may be there.
    """

    def __init__(self, path: Path, limit_bytes: int, *, reserve_bytes: int = RESERVE_BYTES) -> None:
        """Open or create the file; counts its entries, which reads much of a large one.

        Raises:
            SettingsError: the file can't be used, or is damaged. Nothing is deleted, ever.
        """
        self.path = path
        self._limit = limit_bytes
        self._reserve = reserve_bytes
        try:
            self._create()
            self._inode = self.path.stat().st_ino
            self._connection = sqlite3.connect(path, timeout=5.0, isolation_level=None, check_same_thread=False)
            try:
                self._prepare()
                self.last_id: int
                self._entries, self.last_id = self._one("SELECT count(*), coalesce(max(id), 0) FROM entry")
                self.level = self._level()
            except BaseException:
                self._connection.close()
                raise
        except (sqlite3.Error, OSError, struct.error) as error:
            raise SettingsError(self._unusable(error)) from error

    def _create(self) -> None:
        """The files hold payloads: SQLite gives its -wal and -shm the mode of the main file."""
        with contextlib.suppress(FileExistsError):
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            sync(self.path.parent)

    def _prepare(self) -> None:
        execute = self._connection.execute
        found, version = self._one("PRAGMA application_id")[0], self._one("PRAGMA user_version")[0]
        tables = [name for (name,) in execute("SELECT name FROM sqlite_master")]
        if (tables or found) and (found, version) != (APPLICATION_ID, VERSION):
            raise SettingsError(f"IOT_INGEST_STATE_DIR: {self.path} is no spool of this version of the daemon; move it away")
        execute("PRAGMA journal_mode = WAL")
        execute("PRAGMA synchronous = FULL")  # the log is on disk at each commit: PUBACKs depend on it
        execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
        if not tables:
            execute("BEGIN IMMEDIATE")
            execute(SCHEMA)
            execute(f"PRAGMA application_id = {APPLICATION_ID}")
            execute(f"PRAGMA user_version = {VERSION}")
            execute("COMMIT")

    def _unusable(self, error: Exception) -> str:
        text = f"IOT_INGEST_STATE_DIR: can't use the spool {self.path}: {error}"
        name = getattr(error, "sqlite_errorname", "")
        if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
            text += (
                "; it may hold acknowledged messages that Kafka does not have: copy it with its -wal file to a safe place, "
                "rescue the table `entry` with sqlite3's .recover, and put the result (or nothing) there"
            )
        return text

    # -- writing -----------------------------------------------------------------------------------------------
    def write(self, inserts: list[Row], deletes: Iterable[Range]) -> None:
        """Add and delete entries in one transaction, on disk on return; `deletes` are inclusive ranges of ids.

        Raises:
            SpoolError: nothing was changed: no room, or the disk won't. Retry later.
        """
        if inserts:
            self._find_room(sum(len(row[3]) + len(row[4]) + len(row[5]) + 32 for row in inserts))
        execute = self._connection.execute
        removed = 0
        try:
            execute("BEGIN IMMEDIATE")
            self._connection.executemany("INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?)", inserts)
            for low_high in deletes:
                removed += execute("DELETE FROM entry WHERE id BETWEEN ? AND ?", low_high).rowcount
            execute("COMMIT")
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error):
                if self._connection.in_transaction:
                    execute("ROLLBACK")
            raise self._failed("written", error) from error
        self._entries += len(inserts) - removed
        if inserts:
            self.last_id = inserts[-1][0]
        # What is committed stays committed, whatever the look at it says: the oldest entry is never later than this.
        self.level = Level(
            self._entries, self.level.used_bytes, self.level.oldest or (_oldest(*inserts[0][1:3], inserts[0][4]) if inserts else None)
        )
        with contextlib.suppress(sqlite3.Error):
            if removed and not self._entries:
                self._trim()
            self.level = self._level()

    def _find_room(self, wanted_bytes: int) -> None:
        used = self.level.used_bytes
        if used + wanted_bytes > self._limit:
            raise SpoolError(
                f"the spool is full: {used // MILLION} MiB of {self._limit // MILLION} MiB are in use (IOT_INGEST_SPOOL_BYTES)"
            )
        try:
            room = os.statvfs(self.path.parent)
            replaced = self.path.stat().st_ino != self._inode
        except OSError as error:
            raise SpoolError(f"the spool {self.path} can't be used: {error.strerror} (IOT_INGEST_STATE_DIR)") from error
        if replaced:  # SQLite would write on into the file that nobody can open any more
            raise SpoolError(f"the spool {self.path} was replaced under the running daemon: restart it (IOT_INGEST_STATE_DIR)")
        free = room.f_bavail * room.f_frsize
        reserve = min(self._reserve, room.f_blocks * room.f_frsize // 8)
        if free < reserve + 2 * wanted_bytes:  # twice: it goes to the write-ahead log first
            raise SpoolError(
                f"no room for the spool: {free // MILLION} MiB free on the disk of {self.path.parent}, "
                f"{reserve // MILLION} MiB of it are kept free (IOT_INGEST_STATE_DIR)"
            )

    def _trim(self) -> None:
        """Give the space of an empty file back; copies almost nothing."""
        if self._one("PRAGMA page_count")[0] * self._one("PRAGMA page_size")[0] > TRIM_BYTES:
            self._connection.execute("VACUUM")
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    # -- reading -----------------------------------------------------------------------------------------------
    def read(self, after: int, rows: int, size_bytes: int) -> list[Row]:
        """The next entries behind id `after`, oldest first: at most so many, and one at least however large. Raises SpoolError."""
        found: list[Row] = []
        try:
            for row in self._connection.execute("SELECT * FROM entry WHERE id > ? ORDER BY id LIMIT ?", (after, rows)):
                found.append(row)
                size_bytes -= len(row[5])
                if size_bytes <= 0:
                    break
        except sqlite3.Error as error:
            raise self._failed("read", error) from error
        return found

    def _level(self) -> Level:
        pages, free, size = (self._one(f"PRAGMA {name}")[0] for name in ("page_count", "freelist_count", "page_size"))
        oldest = self._connection.execute("SELECT connection, sequence, header FROM entry ORDER BY id LIMIT 1").fetchone()
        return Level(self._entries, (pages - free) * size, oldest and _oldest(*oldest))

    def _one(self, sql: str) -> tuple[int, ...]:
        row: tuple[int, ...] = self._connection.execute(sql).fetchone()
        return row

    def _failed(self, what: str, error: sqlite3.Error) -> SpoolError:
        return SpoolError(f"the spool {self.path} can't be {what}: {error} (IOT_INGEST_STATE_DIR)")

    def close(self) -> None:
        """Close the file; entries stay."""
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()


def _oldest(connection: int, sequence: int, header: bytes) -> Oldest:
    return Oldest(connection, sequence, *struct.unpack_from("!q", header, 4))
