"""The file behind the accounting: a state that a killed process leaves complete, and a power cut at most about a second old."""

import mmap
import os
import struct
import zlib
from pathlib import Path

from ingest_daemon.errors import SettingsError
from ingest_daemon.state_dir import sync

PAGE_BYTES = 4096
_TITLE = struct.Struct("<8sII")  # magic, version, bytes per slot
_HEAD = struct.Struct("<IIQ")  # CRC-32 of all that follows, its length, generation
_CRC, _REST = struct.Struct("<I"), struct.Struct("<IQ")
_MAGIC, _VERSION = b"IOTACCT\n", 1
HEAD_BYTES = _HEAD.size

# 0 and 1 alternate at each write: a kill in the middle of one leaves the other. 2 and 3 alternate at each sync: whatever the kernel
# had written of 0 and 1 when the power went, one of these is complete.
_WRITTEN, _SYNCED = (0, 1), (2, 3)


class AccountingFile:
    """Four slots in one preallocated, memory-mapped file; the newest complete one counts.

    Stores go to the page cache, which outlives the process; `sync` makes them outlive the host. All blocks are allocated and written
    when the file is made, so a full disk can't turn a store into SIGBUS (but on a copy-on-write file system).
    """

    def __init__(self, path: Path, body_bytes: int) -> None:
        """Open or create the file for bodies of at most so many bytes; `body` is the newest complete one, None in a new file.

        Raises:
            SettingsError: the file can't be used. Never retry.
        """
        self.path = path
        self._slot_bytes = -(-(HEAD_BYTES + body_bytes) // PAGE_BYTES) * PAGE_BYTES
        self._size = PAGE_BYTES + 4 * self._slot_bytes
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                self._prepare()
                self._map = mmap.mmap(self._fd, self._size)
            except BaseException:
                os.close(self._fd)
                raise
        except OSError as error:
            raise SettingsError(f"IOT_INGEST_STATE_DIR: can't use {path}: {error.strerror}") from error
        self.damaged = False
        self._generation = 0
        self.body = self._newest()
        self.buffer = bytearray(HEAD_BYTES + body_bytes)
        self._view = memoryview(self.buffer)
        self._turn = self._sync_turn = 0

    def _prepare(self) -> None:
        title = os.pread(self._fd, _TITLE.size, 0)
        wanted = _TITLE.pack(_MAGIC, _VERSION, self._slot_bytes)
        if title.strip(b"\0") and title != wanted:
            raise SettingsError(f"IOT_INGEST_STATE_DIR: {self.path} is no accounting of this version of the daemon; move it away")
        present = os.fstat(self._fd).st_size
        if title == wanted and present >= self._size:
            return
        os.pwrite(self._fd, bytes(max(0, self._size - present)), present)  # zeros, not holes
        os.posix_fallocate(self._fd, 0, self._size)
        os.fsync(self._fd)
        os.pwrite(self._fd, wanted, 0)
        os.fsync(self._fd)
        sync(self.path.parent)

    def _offset(self, slot: int) -> int:
        return PAGE_BYTES + slot * self._slot_bytes

    def _newest(self) -> bytes | None:
        newest: bytes | None = None
        for slot in (*_WRITTEN, *_SYNCED):
            at = self._offset(slot)
            crc, length, generation = _HEAD.unpack_from(self._map, at)
            if not (crc or length or generation):
                continue
            if length > self._slot_bytes - 4 or zlib.crc32(self._map[at + 4 : at + 4 + length]) != crc:
                self.damaged = True
            elif generation > self._generation:
                self._generation = generation
                newest = self._map[at + HEAD_BYTES : at + 4 + length]
        return newest

    def write(self, used: int) -> None:
        """Store `buffer[:used]` (its first HEAD_BYTES are this class's). A few µs."""
        self._put(_WRITTEN[self._turn], used)
        self._turn ^= 1

    def _put(self, slot: int, used: int) -> None:
        self._generation += 1
        view = self._view
        _REST.pack_into(self.buffer, 4, used - 4, self._generation)
        _CRC.pack_into(self.buffer, 0, zlib.crc32(view[4:used]))
        at = PAGE_BYTES + slot * self._slot_bytes
        self._map[at : at + used] = view[:used]

    def copy(self, used: int) -> None:
        """Store `buffer[:used]` where only the next-but-one copy overwrites it; `sync` must follow before the next one."""
        self._put(_SYNCED[self._sync_turn], used)
        self._sync_turn ^= 1

    def sync(self) -> None:
        """What was stored survives a power cut. Blocks; releases the interpreter meanwhile, which `mmap.flush` does not. Raises OSError."""
        os.fdatasync(self._fd)

    def close(self) -> None:
        """Unmap and close."""
        self._view.release()
        self._map.close()
        os.close(self._fd)
