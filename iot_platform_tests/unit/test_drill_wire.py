"""What the wire filters make of bytes: packets cut anywhere, and the points of a PostgreSQL session."""

import asyncio
import os
import socket
import struct
from collections.abc import Iterator

import pytest

from iot_platform.drills.rig.proxy import CutLinkError, Link
from iot_platform.drills.rig.wire import LostPubacks, Point, PostgresFaults, mqtt_frames, pid_of_port

PUBLISH = b"\x32\x83\x01\x00\x01t" + b"x" * 128  # remaining length in two bytes
PUBACK = b"\x40\x02\x00\x07"
PINGREQ = b"\xc0\x00"


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_mqtt_frames_of_any_chunking(size: int) -> None:
    stream = PUBLISH + PUBACK + PINGREQ + PUBLISH
    buffer, frames = bytearray(), []
    for start in range(0, len(stream), size):
        buffer += stream[start : start + size]
        frames += list(mqtt_frames(buffer))
    assert frames == [PUBLISH, PUBACK, PINGREQ, PUBLISH]
    assert not buffer


def test_pubacks_are_swallowed_while_told_so() -> None:
    pubacks = LostPubacks()
    with socket.socket() as client:
        taken = pubacks(Link(1, 1, client))

        def up(chunk: bytes) -> bytes:
            return asyncio.run(taken.up(chunk))

        assert up(PUBACK + PINGREQ) == PUBACK + PINGREQ
        pubacks.on = True
        assert up(PUBACK + PINGREQ + PUBACK[:2]) == PINGREQ
        assert up(PUBACK[2:]) == b""
        assert pubacks.swallowed == 2


def message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body


def query(text: str) -> bytes:
    return message(b"Q", text.encode() + b"\0")


def startup(name: str) -> bytes:
    body = struct.pack("!i", 196608) + b"user\0me\0application_name\0" + name.encode() + b"\0\0"
    return struct.pack("!ii", 8, 80877103) + struct.pack("!i", len(body) + 4) + body


class Session:
    """A filtered session; `arrived` is what the server would have got."""

    def __init__(self, faults: PostgresFaults, name: str = "iot-drain 1") -> None:
        self._server, self._inside = socket.socketpair()
        self._inside.setblocking(False)
        self._client = socket.socket()
        self._filter = faults(Link(1, 4711, self._client, self._inside))
        self.arrived = b""
        self.up(startup(name))

    def up(self, *messages: bytes, size: int = 7) -> None:
        stream = b"".join(messages)

        async def send() -> None:
            for start in range(0, len(stream), size):
                self.arrived += await self._filter.up(stream[start : start + size])

        try:
            asyncio.run(send())
        except CutLinkError:
            self._server.setblocking(False)
            self.arrived += self._server.recv(10**6) if self._readable() else b""
            raise

    def _readable(self) -> bool:
        try:
            return bool(self._server.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            return False

    def down(self, chunk: bytes) -> bytes:
        return asyncio.run(self._filter.down(chunk))

    def close(self) -> None:
        for each in (self._server, self._inside, self._client):
            each.close()


@pytest.fixture
def faults() -> PostgresFaults:
    return PostgresFaults()


@pytest.fixture
def session(faults: PostgresFaults) -> Iterator[Session]:
    made = Session(faults)
    yield made
    made.close()


BATCH = [query("BEGIN"), query("\nCOPY message (a) FROM STDIN"), message(b"d", b"0123456789"), message(b"c", b""), query("COMMIT")]


def test_nothing_armed_changes_nothing(session: Session, faults: PostgresFaults) -> None:
    session.up(*BATCH, query("BEGIN"), query("SELECT 1"), query("COMMIT"))
    assert session.arrived.endswith(b"".join(BATCH) + query("BEGIN") + query("SELECT 1") + query("COMMIT"))
    passed = ("at_statement", "statement_answered", "in_copy", "before_commit", "in_commit", "answer_lost")
    assert faults.seen == {"at_begin": 2, **dict.fromkeys(passed, 1)}


@pytest.mark.parametrize(
    ("point", "arrives"), [("at_begin", b""), ("in_copy", b"".join(BATCH[:2]) + BATCH[2][:7]), ("before_commit", b"".join(BATCH[:4]))]
)
def test_cut_at_a_point(session: Session, faults: PostgresFaults, point: str, arrives: bytes) -> None:
    session.up(*BATCH)
    before = session.arrived
    fault = faults.arm(point, 2)  # type: ignore[arg-type]
    session.up(*BATCH)
    before += b"".join(BATCH)
    with pytest.raises(CutLinkError):
        session.up(*BATCH)
    assert session.arrived == before + arrives
    assert (fault.reached.is_set(), fault.client_port, fault.application_name) == (True, 4711, "iot-drain 1")


def test_the_answer_of_a_commit_is_lost(session: Session, faults: PostgresFaults) -> None:
    fault = faults.arm("answer_lost")
    session.up(*BATCH)
    assert session.arrived.endswith(query("COMMIT"))
    assert session.down(b"C\0\0\0\x0bCOM") == b""
    assert not fault.reached.is_set()
    with pytest.raises(CutLinkError):
        session.down(b"MIT\0Z")
    assert fault.reached.is_set()


CLAIMED = [query("BEGIN"), query("SELECT 1"), query("UPDATE a SET b = 1"), query("UPDATE c SET d = 1"), query("COMMIT")]


@pytest.mark.parametrize(("point", "arrives"), [("at_statement", 2), ("before_commit", 4), ("in_commit", 5)])
def test_points_of_a_statement_and_its_transaction(point: Point, arrives: int) -> None:
    faults = PostgresFaults("", "UPDATE a")
    fault = faults.arm(point, 2)
    session = Session(faults, "any")
    session.up(*CLAIMED, query("BEGIN"), query("SELECT 'COPY '"), query("COMMIT"), query("BEGIN"), query("UPDATE c"), query("COMMIT"))
    before = session.arrived
    with pytest.raises(CutLinkError):
        session.up(*CLAIMED)
    session.close()
    assert session.arrived == before + b"".join(CLAIMED[:arrives])
    assert fault.reached.is_set()


def test_a_transaction_that_was_rolled_back_has_no_commit() -> None:
    faults = PostgresFaults("", "UPDATE a")
    session = Session(faults)
    session.up(*CLAIMED[:-1], query("ROLLBACK"), query("BEGIN"), query("SELECT 1"), query("COMMIT"))
    session.close()
    assert faults.seen == {"at_begin": 2, "at_statement": 1, "statement_answered": 1}


def test_the_answer_of_a_statement_is_lost() -> None:
    faults = PostgresFaults("", "UPDATE a")
    fault = faults.arm("statement_answered")
    session = Session(faults)
    session.up(*CLAIMED[:2])
    assert session.down(message(b"C", b"SELECT 1\0") + message(b"Z", b"T")) != b""
    session.up(CLAIMED[2])
    assert session.arrived.endswith(CLAIMED[2])
    assert session.down(message(b"C", b"UPDATE 1\0")) == b""
    assert not fault.reached.is_set()
    with pytest.raises(CutLinkError):
        session.down(message(b"Z", b"T"))
    session.close()
    assert fault.reached.is_set()


def test_sessions_of_others_pass(faults: PostgresFaults) -> None:
    fault = faults.arm("at_begin")
    other = Session(faults, "dagster")
    other.up(*BATCH)
    other.close()
    assert not fault.reached.is_set()
    with pytest.raises(TimeoutError, match="at_begin"):
        fault.wait(0.01)


def test_a_held_session_waits_for_the_cut(session: Session, faults: PostgresFaults) -> None:
    fault = faults.arm("before_commit", hold=True)

    async def scenario() -> None:
        held = asyncio.create_task(session._filter.up(b"".join(BATCH)))
        while not fault.reached.is_set():
            await asyncio.sleep(0.01)
        assert not held.done()
        fault.cut()
        with pytest.raises(CutLinkError):
            await held

    asyncio.run(scenario())


def test_whose_port_it_is() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as client:
        port, peer = client.getsockname()[1], listener.getsockname()[1]
        assert pid_of_port(port, peer) == os.getpid()
        assert pid_of_port(port, peer + 1) == 0
