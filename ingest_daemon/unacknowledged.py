"""The file of what the MQTT broker may send again: digests of what the last connections brought, as a kill -9 leaves them."""

import contextlib
import mmap
import os
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import structlog

from ingest_daemon.state_dir import boot, sync

SLOTS = 65_536  # messages of the open connection that are remembered: as many as MQTT has packet ids
CARRIED = 65_000  # candidates of earlier connections
EARLIER_RECEIPTS = 8  # of a message: more only if the daemon was killed as often before it could acknowledge it
NO_ORIGIN = 0xFFFF  # in a slot: the message repeats none
REPEATS_SAME = 0xFFFE  # in a slot: the message repeats one of the same connection, and is no candidate of its own

_MAGIC, _VERSION = b"IOTUNACK", 2
_HEAD = struct.Struct("<8sIIqQQQQ")  # magic, version, carried, connection, received, settled, certain, boot
_RECEIVED, _SETTLED, _CERTAIN, _BOOT = 24, 32, 40, 48
_STAMP = struct.Struct("<q")
_CANDIDATE = struct.Struct("<BBHI" + "qQq" * EARLIER_RECEIPTS)  # as the head, a multiple of 8: what follows them is aligned
_OWED, _RECENT, _AWAITED, _REPEATED, _USED = 1, 2, 4, 8, 16

log = structlog.get_logger("ingest.redelivery")


class Receipt(NamedTuple):
    """One arrival of a message: connection number, sequence within it, receive time (µs since the epoch)."""

    number: int
    sequence: int
    received_at_us: int


@dataclass(slots=True)
class Candidate:
    """A message of an earlier connection that the broker may send again.

    `owed`: no PUBACK was ever sent. `recent`: one was, but not so long ago that the broker has it for certain. Neither: among the last
    messages of its connection. `awaited`: the accounting counts it as awaiting redelivery. `repeated`: topic and bytes occur more than once
    among what is remembered. `receipts`: its arrivals that may be in Kafka, oldest first.
    """

    digest: int
    packet_id: int
    receipts: tuple[Receipt, ...]
    owed: bool = False
    recent: bool = False
    awaited: bool = False
    repeated: bool = False
    used: bool = False
    index: int = NO_ORIGIN  # its place in the file


@dataclass(slots=True)
class Left:
    """What a connection left behind. `slots` are (sequence, digest, packet id, origin, receive time), ascending."""

    number: int
    settled: int  # PUBACKs may have been sent up to this sequence
    certain: int  # the broker has those up to this one
    carried: list[Candidate] = field(default_factory=list)
    slots: list[tuple[int, int, int, int, int]] = field(default_factory=list)


class Unacknowledged:
    """The newest SLOTS messages of the open connection and the candidates of earlier ones.

    What `write`, `settled`, `certain` and `forget` store is in the page cache on return and survives a kill -9; a power cut leaves a file
    that counts as none. Where the disk has no room the memory is all there is. One thread.
    """

    def __init__(self, path: Path) -> None:
        """`left` is what an earlier process left behind, until the first connection; None: nothing that can be trusted."""
        self._path = path
        self._map: mmap.mmap | bytearray = bytearray()
        self._base = 0
        self._carried: list[Candidate] = []
        self._used: list[int] = []  # candidates, by index, whose use is not stored yet
        self._number = 0
        self.left = self._read()

    # -- the open connection -----------------------------------------------------------------------------------
    def opened(self, number: int, carried: Sequence[Candidate]) -> list[Candidate]:
        """Begin anew with this connection; the file holds the candidates in the moment in which it forgets the connection before. Returns
        those that there was room for, the newest."""
        self._carried = list(carried[-CARRIED:])
        for index, candidate in enumerate(self._carried):
            candidate.index = index
        self._used.clear()
        self._number = number
        self._base = _HEAD.size + len(self._carried) * _CANDIDATE.size
        head = _HEAD.pack(_MAGIC, _VERSION, len(self._carried), number, 0, 0, 0, boot())
        body = head + b"".join(map(_packed, self._carried))
        self._release()
        self.left = None
        self._map = self._allocated(self._base + 16 * SLOTS, body)
        return self._carried

    def write(self, first: int, marks: list[int], stamp_us: int) -> None:
        """Messages of a turn, the first one's sequence being `first`; before Kafka can have them. Each one's receive time is `stamp_us` and
        its sequence.

        Two marks for each: packet id << 16 | origin, and the digest. The origin is the index of the candidate that the message repeats,
        NO_ORIGIN or REPEATS_SAME.
        """
        count = len(marks) // 2
        self._write(first, count, marks, _STAMP.pack(stamp_us))
        self._store(_RECEIVED, first + count - 1)
        self._store_used()  # only now: until then the broker would send again what nobody remembers

    def _write(self, first: int, count: int, marks: list[int], stamp: bytes) -> None:
        slot = (first - 1) % SLOTS
        room = SLOTS - slot
        if count > room:
            self._write(first + room, count - room, marks[2 * room :], stamp)
            count, marks = room, marks[: 2 * room]
        at = self._base + 8 * slot
        self._map[at : at + 8 * count] = struct.pack(f"<{2 * count}I", *marks)
        at += 8 * SLOTS
        self._map[at : at + 8 * count] = stamp * count

    def settled(self, sequence: int) -> None:
        """PUBACKs up to this sequence are about to be sent."""
        self._store(_SETTLED, sequence)

    def certain(self, sequence: int) -> None:
        """The broker has the PUBACKs up to this sequence."""
        self._store(_CERTAIN, sequence)

    def use(self, candidate: Candidate) -> None:
        """The broker has sent it again: it won't a second time. Stored with the message that repeats it."""
        candidate.used = True
        self._used.append(candidate.index)

    def forget(self) -> None:
        """The broker won't send any of the candidates again."""
        for candidate in self._carried:
            self.use(candidate)
        self._store_used()

    def _store_used(self) -> None:
        for index in self._used:
            self._map[_HEAD.size + index * _CANDIDATE.size] |= _USED
        self._used.clear()

    def digest_of(self, sequence: int, received: int) -> int | None:
        """The digest of a message of the open connection, which has brought `received` so far; None where it is forgotten."""
        if not 0 < sequence <= received or sequence <= received - SLOTS:
            return None
        at = self._base + 8 * ((sequence - 1) % SLOTS)
        return int.from_bytes(self._map[at : at + 8], "little") >> 32

    def receipt_of(self, sequence: int) -> Receipt:
        """The arrival of a remembered message of the open connection."""
        at = self._base + 8 * (SLOTS + (sequence - 1) % SLOTS)
        return Receipt(self._number, sequence, _STAMP.unpack(self._map[at : at + 8])[0] + sequence)

    def look(self) -> Left | None:
        """What the open connection leaves behind; None before the first one."""
        return _parse(self._map, self._carried) if self._map else self.left

    def close(self) -> None:
        """Keep it over a restart of the host, too."""
        if isinstance(self._map, mmap.mmap):
            try:
                self._map.flush()  # first: pages reach the disk in any order, and the mark below vouches for all of them
                self._store(_BOOT, 0)
                self._map.flush()
            except OSError as error:
                log.warning("unacknowledged_not_kept", reason=error.strerror, file=str(self._path))
        self._release()

    # -- inside ------------------------------------------------------------------------------------------------
    def _store(self, at: int, value: int) -> None:
        self._map[at : at + 8] = value.to_bytes(8, "little")  # one aligned store: a kill leaves the old or the new value

    def _release(self) -> None:
        if isinstance(self._map, mmap.mmap):
            self._map.close()
        self._map = bytearray()

    def _allocated(self, size: int, body: bytes) -> "mmap.mmap | bytearray":
        partial = self._path.with_name(f"{self._path.name}.new")
        try:
            fd = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(fd, 0, size)  # all blocks, or a full disk would turn a store into SIGBUS
                os.pwrite(fd, body, 0)
                mapped = mmap.mmap(fd, size)
            finally:
                os.close(fd)
            partial.replace(self._path)
            sync(self._path.parent)  # else a power cut could bring back the file before, which may say that it is whole
        except OSError as error:
            log.warning("unacknowledged_in_memory_only", reason=error.strerror, file=str(self._path), setting="IOT_INGEST_STATE_DIR")
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
                self._path.unlink(missing_ok=True)  # it knows nothing of this connection
                sync(self._path.parent)
            return bytearray(body.ljust(size, b"\0"))
        return mapped

    def _read(self) -> Left | None:
        try:
            data = self._path.read_bytes()
        except OSError:
            return None
        if len(data) < _HEAD.size:
            return None
        magic, version, count, number, *_, host = _HEAD.unpack_from(data)
        base = _HEAD.size + count * _CANDIDATE.size
        if (magic, version) != (_MAGIC, _VERSION) or host not in (0, boot()) or len(data) < base + 16 * SLOTS:
            return None
        carried = [_unpacked(data, index) for index in range(count)]
        left = _parse(data, carried)
        log.debug("unacknowledged_found", connection=number, candidates=len(carried), messages=len(left.slots))
        return left


def digest_of(first: int, topic: bytes, payload: bytes) -> int:
    """Short digest of what a redelivered message has in common with its first copy: topic, bytes, RETAIN. Whoever needs to be sure
    compares them."""
    return crc32(payload, crc32(topic) ^ first & 1)


def _parse(data: "bytes | bytearray | mmap.mmap", carried: list[Candidate]) -> Left:
    _, _, count, number, received, settled, certain, _ = _HEAD.unpack_from(data)
    base = _HEAD.size + count * _CANDIDATE.size
    marks = struct.unpack_from(f"<{SLOTS}Q", data, base)
    stamps = struct.unpack_from(f"<{SLOTS}q", data, base + 8 * SLOTS)
    slots = []
    for sequence in range(max(1, received - SLOTS + 1), received + 1):
        value, stamp_us = marks[(sequence - 1) % SLOTS], stamps[(sequence - 1) % SLOTS]
        origin = value & 0xFFFF
        if origin < count:
            carried[origin].used = True
        slots.append((sequence, value >> 32, value >> 16 & 0xFFFF, origin, stamp_us + sequence))
    return Left(number, settled, certain, carried, slots)


def _packed(candidate: Candidate) -> bytes:
    flags = candidate.owed * _OWED | candidate.recent * _RECENT | candidate.awaited * _AWAITED | candidate.repeated * _REPEATED
    flags |= candidate.used * _USED
    receipts: list[Iterable[int]] = [*candidate.receipts]
    receipts += [(0, 0, 0)] * (EARLIER_RECEIPTS - len(receipts))
    return _CANDIDATE.pack(flags, 0, candidate.packet_id, candidate.digest, *(value for receipt in receipts for value in receipt))


def _unpacked(data: bytes, index: int) -> Candidate:
    flags, _, packet_id, digest, *values = _CANDIDATE.unpack_from(data, _HEAD.size + index * _CANDIDATE.size)
    receipts = [Receipt(*values[at : at + 3]) for at in range(0, len(values), 3)]
    return Candidate(
        digest=digest,
        packet_id=packet_id,
        receipts=tuple(receipt for receipt in receipts if receipt.sequence),
        owed=bool(flags & _OWED),
        recent=bool(flags & _RECENT),
        awaited=bool(flags & _AWAITED),
        repeated=bool(flags & _REPEATED),
        used=bool(flags & _USED),
        index=index,
    )
