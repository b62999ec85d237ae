"""Filters for the fault proxy that know MQTT and PostgreSQL: faults at a named point of the protocol instead of a moment in time."""

import asyncio
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from iot_platform.drills.rig.proxy import CutLinkError, Link

Point = Literal["at_begin", "at_statement", "statement_answered", "in_copy", "before_commit", "in_commit", "answer_lost"]
"""at_begin: BEGIN does not arrive. at_statement: the statement does not. statement_answered: it has been executed, its answer is not
delivered. in_copy: half of COPY's data arrives. before_commit: COMMIT does not arrive. in_commit: COMMIT arrives, its answer is not
awaited. answer_lost: COMMIT has been executed, its answer is not delivered. PostgresFaults says which statements and COMMITs count."""

PUBACK: Final = 4
_STARTUP: Final = 196608  # protocol 3.0
_PLAIN_REQUESTS: Final = (80877103, 80877104)  # SSLRequest, GSSENCRequest: answered by one byte
_HELD_SECONDS: Final = 120.0
_READY: Final = b"Z\0\0\0\x05"  # ReadyForQuery, and one byte: the end of every answer


# -- MQTT ------------------------------------------------------------------------------------------------------
class LostPubacks:
    """Factory of filters that swallow what clients acknowledge while `on` is set: PUBACKs that are lost on the wire."""

    def __init__(self) -> None:
        self.on = False
        self.swallowed = 0

    def __call__(self, _link: Link) -> "_PubackFilter":
        return _PubackFilter(self)


class _PubackFilter:
    def __init__(self, shared: LostPubacks) -> None:
        self._shared = shared
        self._buffer = bytearray()

    async def up(self, chunk: bytes) -> bytes:
        self._buffer += chunk
        passed = []
        for frame in mqtt_frames(self._buffer):
            if self._shared.on and frame[0] >> 4 == PUBACK:
                self._shared.swallowed += 1
            else:
                passed.append(frame)
        return b"".join(passed)

    async def down(self, chunk: bytes) -> bytes:
        return chunk


def mqtt_frames(buffer: bytearray) -> Iterator[bytes]:
    """Take the complete control packets off the front of a buffer."""
    while len(buffer) >= 2:
        length, size = 0, 1
        while True:
            if size >= len(buffer):
                return
            digit = buffer[size]
            length |= (digit & 0x7F) << 7 * (size - 1)
            size += 1
            if not digit & 0x80:
                break
        if len(buffer) < size + length:
            return
        frame = bytes(buffer[: size + length])
        del buffer[: size + length]
        yield frame


# -- PostgreSQL ------------------------------------------------------------------------------------------------
@dataclass(eq=False)
class Fault:
    """One fault that waits for its point; made by PostgresFaults.arm."""

    point: Point
    nth: int
    hold: bool
    reached: threading.Event = field(default_factory=threading.Event)
    client_port: int = 0
    proxy_port: int = 0
    application_name: str = ""
    _loop: asyncio.AbstractEventLoop | None = None
    _released: asyncio.Event = field(default_factory=asyncio.Event)

    def wait(self, seconds: float) -> int:
        """Until a session is held (or was cut) at the point; returns the process id of the client, 0 if it has gone.

        Raises:
            TimeoutError: no session came to the point.
        """
        if not self.reached.wait(seconds):
            raise TimeoutError(f"no session came to '{self.point}' within {seconds:g} s")
        return pid_of_port(self.client_port, self.proxy_port)

    def cut(self) -> None:
        """Reset the connection that is held."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._released.set)

    async def happen(self, link: Link, application_name: str) -> None:
        """In the proxy's thread: tell who waits for it; held, wait for `cut`."""
        self.client_port, self.proxy_port, self.application_name = link.client_port, link.proxy_port, application_name
        self._loop = asyncio.get_running_loop()
        self.reached.set()
        if self.hold:
            await asyncio.wait_for(self._released.wait(), _HELD_SECONDS)


class PostgresFaults:
    """Factory of filters that break sessions at points of the protocol. Sessions count whose application's name begins with `application`,
    statements that contain `text`, and COMMITs of transactions with such a statement: as they are, the drain's batches. TLS must be off: it
    would hide them."""

    def __init__(self, application: str = "iot-drain ", text: str = "COPY ") -> None:
        self._application = application
        self.text = text.encode()
        self._armed: list[Fault] = []
        self.seen: dict[str, int] = {}
        """How often each point was passed or hit."""

    def __call__(self, link: Link) -> "_PostgresFilter":
        return _PostgresFilter(self, link)

    def arm(self, point: Point, nth: int = 1, *, hold: bool = False) -> Fault:
        """The n-th time from now that a session comes to the point, cut its connection there; with `hold` only when `cut` is called."""
        fault = Fault(point, nth, hold)
        self._armed.append(fault)
        return fault

    def due(self, point: Point, application_name: str) -> Fault | None:
        """In the proxy's thread: a session has come to a point. The fault that is due now."""
        if not application_name.startswith(self._application):
            return None
        self.seen[point] = self.seen.get(point, 0) + 1
        for fault in self._armed:
            if fault.point == point:
                fault.nth -= 1
                if fault.nth == 0:
                    self._armed.remove(fault)
                    return fault
        return None


class _PostgresFilter:
    """Follows one session: the start-up packet, then the messages of the simple query protocol, which is what psycopg2 speaks."""

    def __init__(self, faults: PostgresFaults, link: Link) -> None:
        self._faults = faults
        self.link = link
        self.application_name = ""
        self._started = False
        self._buffer = bytearray()
        self._concerned = False  # this transaction has had a statement with the text
        self._copying = False  # a COPY was asked for, its data follows
        self._dropping: Fault | None = None
        self._answer = b""

    async def up(self, chunk: bytes) -> bytes:
        self._buffer += chunk
        passed: list[bytes] = []
        while frame := self._frame():
            begun = self._started
            if not begun:
                self._start(frame)
            for point in self._points(frame) if begun else ():
                if fault := self._faults.due(point, self.application_name):
                    await self._strike(fault, b"".join(passed), frame)
            passed.append(frame)
        return b"".join(passed)

    async def down(self, chunk: bytes) -> bytes:
        if self._dropping is None:
            return chunk
        self._answer += chunk
        committing = self._dropping.point == "answer_lost"
        if b"COMMIT\0" in self._answer if committing else self._answer[-6:-1] == _READY:  # it has happened
            await self._dropping.happen(self.link, self.application_name)
            raise CutLinkError
        return b""

    async def _strike(self, fault: Fault, before: bytes, frame: bytes) -> None:
        if fault.point in ("statement_answered", "answer_lost"):
            self._dropping = fault  # before it goes on
            return
        arrives = {"in_copy": frame[: len(frame) // 2], "in_commit": frame}
        await self.link.send("up", before + arrives.get(fault.point, b""))
        await fault.happen(self.link, self.application_name)
        raise CutLinkError

    def _points(self, frame: bytes) -> tuple[Point, ...]:
        """The points that this message stands for."""
        if frame[:1] == b"d" and self._copying:
            self._copying = False
            return ("in_copy",)
        if frame[:1] != b"Q":
            return ()
        verb = frame[5:40].lstrip().split(b" ")[0].strip(b"\0;\n").upper()
        self._copying = verb == b"COPY"
        if verb == b"BEGIN":
            self._concerned = False
            return ("at_begin",)
        if verb == b"COMMIT" and self._concerned:
            self._concerned = False
            return ("before_commit", "in_commit", "answer_lost")
        if self._faults.text in frame[5:]:
            self._concerned = True
            return ("at_statement", "statement_answered")
        return ()

    def _start(self, frame: bytes) -> None:
        kind = struct.unpack_from("!i", frame, 4)[0]
        if kind in _PLAIN_REQUESTS:
            return
        self._started = True
        if kind == _STARTUP:
            fields = frame[8:].split(b"\0")
            parameters = dict(zip(fields[::2], fields[1::2], strict=False))
            self.application_name = parameters.get(b"application_name", b"").decode("utf-8", "replace")

    def _frame(self) -> bytes | None:
        """The next complete message; those before the session has started have no type byte."""
        head = 1 if self._started else 0
        if len(self._buffer) < head + 4:
            return None
        length = head + struct.unpack_from("!i", self._buffer, head)[0]
        if len(self._buffer) < length:
            return None
        frame = bytes(self._buffer[:length])
        del self._buffer[:length]
        return frame


# -- processes -------------------------------------------------------------------------------------------------
def pid_of_port(port: int, peer_port: int) -> int:
    """The process that has the TCP connection between these ports of the loopback interface, the first one its own; 0 if there is none, or
    we may not look. One port alone would not do: the system gives it to several connections."""
    ends = [f"0100007F:{port:04X}", f"0100007F:{peer_port:04X}"]
    lines = [line.split() for line in Path("/proc/net/tcp").read_text("ascii").splitlines()[1:]]
    inodes = {fields[9] for fields in lines if fields[1:3] == ends} - {"0"}
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            target = str(link.readlink())
        except OSError:  # gone meanwhile, or somebody else's
            continue
        if target.removeprefix("socket:[").removesuffix("]") in inodes:
            return int(link.parts[2])
    return 0
