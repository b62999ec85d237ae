"""The accounting under real kills, a really full disk, and any sequence of events with kills at the worst moments."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings as limits
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ingest_daemon.accounting import AWAIT_SECONDS, Accounting, Turn
from ingest_daemon.errors import SettingsError

ROUNDS = 8

# Records turns as fast as it can; a line on standard output stands for the PUBACKs that follow a record.
CHILD = """
import os, random, sys
from pathlib import Path
from ingest_daemon import logs
from ingest_daemon.accounting import Accounting, Turn
logs.configure("error")
chance = random.Random(int(sys.argv[2]))
books = Accounting(Path(sys.argv[1]), "c", 0, None, keep_seconds=0.01)
number = int(sys.argv[2]) * 1_000_000
waiting = []  # connection, sequence
while True:
    number += 1
    books.opened(number, session_lost=False)
    for sequence in range(1, chance.randrange(2, 300)):
        waiting.append((number, sequence))
        done, waiting = waiting[: (cut := chance.randrange(0, len(waiting) + 1))], waiting[cut:]
        settled = dict(done)
        books.record(Turn(1, 0, 0, len(done), 0, 0, 0, 0, len(waiting), 0, len(waiting), 1), (number, sequence), settled, None)
        os.write(1, b"%d %d %d\\n" % (*(done[-1] if done else (0, 0)), len(done)))
    books.closed(number, sequence)
"""


def answer(accounting: Accounting) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(accounting.snapshot().to_json())
    places = ("delivered", "spooled", "dead_lettered", "in_flight", "given_up", "missing")
    assert found["received"] == sum(found[place] for place in places), found
    return found


def test_kill_9_at_any_moment_forgets_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    chance = random.Random(4)
    acknowledged: dict[int, int] = {}
    delivered = 0
    for generation in range(1, ROUNDS + 1):
        process = subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path), str(generation)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(chance.randrange(1, 5000))]
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.readlines()
        process.stdout.close()
        process.wait(30)
        for line in lines:
            if not line.endswith(b"\n"):
                continue
            number, sequence, count = map(int, line.split())
            acknowledged[number] = max(sequence, acknowledged.get(number, 0))
            delivered += count
        acknowledged.pop(0, None)
        accounting = Accounting(tmp_path, "c", 0, None, keep_seconds=0)
        found = answer(accounting)
        accounting.close()
        assert found["missing"] == 0
        # A kill between record and line leaves more recorded than told: the messages of that turn.
        assert found["delivered"] >= delivered
        delivered = found["delivered"]
        settled = {connection["number"]: connection["settled"] for connection in found["connections"]}
        assert all(settled[number] >= sequence for number, sequence in acknowledged.items())
        assert all(connection["in_kafka"] == connection["settled"] <= connection["received"] for connection in found["connections"])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("needs root")
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, check=False).returncode:
        pytest.skip("may not mount")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Path:
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            for size in (65536, 512, 1):
                while file.write(b"x" * size) == size:
                    pass
        except OSError:
            pass
    return ballast


def plain(**moved: int) -> Turn:
    return Turn(**{**dict.fromkeys(Turn._fields, 0), **moved})


def test_a_full_disk_delays_the_history_and_nothing_else(small_disk: Path) -> None:
    accounting = Accounting(small_disk, "c", 0, None, keep_seconds=0)
    ballast = fill(small_disk)
    for number in range(1, 2001):
        accounting.opened(number, session_lost=False)
        accounting.record(plain(received=3, delivered=3), (number, 3), {number: 3}, None)
        accounting.closed(number, 3)
        if number % 500 == 0:
            accounting.keep()
    assert not accounting._unsynced  # the state itself needs no room
    found = answer(accounting)
    assert (found["received"], len(found["connections"])) == (6000, 2000)
    killed = Accounting(small_disk, "c", 0, None, keep_seconds=0)  # on a disk that is still full
    assert answer(killed)["received"] == 6000
    ballast.unlink()
    accounting.keep()
    accounting.close()
    again = Accounting(small_disk, "c", 0, None, keep_seconds=0)
    assert [connection["settled"] for connection in answer(again)["connections"]] == [3] * 2000
    again.close()
    killed.close()


def test_a_full_disk_at_the_first_start_is_refused_by_name(small_disk: Path) -> None:
    ballast = fill(small_disk)
    with pytest.raises(SettingsError, match="IOT_INGEST_STATE_DIR"):
        Accounting(small_disk, "c", 0, None, keep_seconds=0)
    ballast.unlink()
    Accounting(small_disk, "c", 0, None, keep_seconds=0).close()


Message = tuple[int, int]
"""Connection and sequence."""
KAFKA = st.sampled_from(["delivered", "dead_lettered"])


class DaemonLife(RuleBasedStateMachine):
    """A daemon with a broker, a spool and Kafka around it. Each rule is a part of a turn, and a kill may come between any two."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.now = 0.0
        self.number = 0  # last connection
        self.rows: list[Message] = []  # in the spool's file
        self.kafka: set[Message] = set()
        self.acknowledged: dict[int, int] = {}
        self.unacknowledged = 0  # at the broker, of what it sent
        self.counters = (0, 0, 0)
        self.start()

    def start(self) -> None:
        self.books = Accounting(self.folder, "c", len(self.rows), self.oldest, keep_seconds=0, clock=lambda: self.now)
        self.connected = False
        self.queue: list[tuple[Message, str]] = []  # in flight, and what has become of it
        self.counted = list(self.rows)  # rows that a turn has counted
        self.sent: list[Message] = []  # rows handed to Kafka
        self.doubted: list[Message] = []  # those of them that the last record knew
        self.sequence = self.received = self.redelivered = self.to_redeliver = self.gone = self.gone_dead = 0

    @property
    def oldest(self) -> Message | None:
        return self.rows[0] if self.rows else None

    @rule(lost=st.booleans())
    def connect(self, lost: bool) -> None:
        self.number += 1
        self.books.opened(self.number, session_lost=lost)
        self.connected, self.sequence = True, 0
        self.unacknowledged = 0 if lost else self.unacknowledged
        self.to_redeliver = self.unacknowledged

    @precondition(lambda self: self.connected)
    @rule()
    def disconnect(self) -> None:
        self.turn(acknowledge=False)
        self.books.closed(self.number, self.sequence)
        self.connected = False

    @precondition(lambda self: self.connected)
    @rule(count=st.integers(1, 5))
    def receive(self, count: int) -> None:
        for _ in range(count):
            self.sequence += 1
            self.received += 1
            self.queue.append(((self.number, self.sequence), ""))
            again = self.to_redeliver > 0
            self.to_redeliver -= again
            self.redelivered += again
            self.unacknowledged += not again

    @precondition(lambda self: any(not place for _, place in self.queue))
    @rule(data=st.data(), place=KAFKA)
    def arrive(self, data: st.DataObject, place: str) -> None:
        index = data.draw(st.sampled_from([index for index, (_, known) in enumerate(self.queue) if not known]))
        self.queue[index] = (self.queue[index][0], place)
        self.kafka.add(self.queue[index][0])

    @rule(count=st.integers(1, 5))
    def spool(self, count: int) -> None:
        """A commit: the oldest unsettled messages, in order."""
        for index, (message, place) in enumerate(self.queue):
            if not place and count:
                self.queue[index] = (message, "spooled")
                self.rows.append(message)
                count -= 1

    @precondition(lambda self: len(self.sent) < len(self.counted))
    @rule()
    def forward(self) -> None:
        self.sent.append(self.counted[len(self.sent)])

    @precondition(lambda self: self.doubted)
    @rule(data=st.data(), place=KAFKA)
    def delete(self, data: st.DataObject, place: str) -> None:
        """Kafka has the oldest rows, and they are deleted; a record knew that this might happen."""
        for message in self.doubted[: data.draw(st.integers(1, len(self.doubted)))]:
            self.kafka.add(message)
            for rows in (self.rows, self.counted, self.sent, self.doubted):
                rows.remove(message)
            self.gone += place == "delivered"
            self.gone_dead += place == "dead_lettered"

    @rule(acknowledge=st.booleans())
    def turn(self, acknowledge: bool) -> None:
        counts = {"delivered": 0, "dead_lettered": 0, "spooled": 0}
        settled: dict[int, int] = {}
        acknowledged = 0
        while self.queue and self.queue[0][1]:
            message, place = self.queue.pop(0)
            counts[place] += 1
            settled[message[0]] = message[1]
            acknowledged += self.connected and message[0] == self.number
            if place == "spooled":
                self.counted.append(message)
        self.books.record(
            plain(
                received=self.received, redelivered=self.redelivered, resumed=self.redelivered, **counts,
                unspooled=self.gone, unspooled_dead_lettered=self.gone_dead, last_received_us=1,
                in_flight=len(self.queue), in_doubt=len(self.queue) + len(self.sent),
            ),
            (self.number, self.sequence) if self.connected else None, settled, self.oldest,
        )  # fmt: skip
        self.received = self.redelivered = self.gone = self.gone_dead = 0
        self.doubted = list(self.sent)
        if acknowledge and acknowledged:
            self.acknowledged[self.number] = settled[self.number]
            self.unacknowledged -= acknowledged
        elif acknowledged:
            self.kill()  # between the record and its PUBACKs; else they would follow

    @rule(keep=st.booleans())
    def kill(self, keep: bool = False) -> None:
        if keep:
            self.books.keep()
        self.books._finished.close()
        self.books._file.close()
        self.start()

    @rule(seconds=st.sampled_from([1.0, AWAIT_SECONDS]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def holds(self) -> None:
        found = answer(self.books)
        assert found["missing"] == 0
        counters = (found["received"], found["delivered"], found["dead_lettered"])
        assert all(now >= before for now, before in zip(counters, self.counters, strict=True))
        self.counters = counters
        safe = self.kafka.union(self.rows)
        for connection in found["connections"]:
            number, settled, in_kafka = connection["number"], connection["settled"], connection["in_kafka"]
            assert all((number, sequence) in safe for sequence in range(1, settled + 1))
            assert all((number, sequence) in self.kafka for sequence in range(1, in_kafka + 1))
            assert settled >= self.acknowledged.get(number, 0)

    def teardown(self) -> None:
        """When all is calm again nothing is in flight, and everything settled is in Kafka."""
        self.connect(lost=False)
        self.receive(max(1, self.to_redeliver))
        self.spool(len(self.queue))
        self.turn(acknowledge=True)
        while self.counted:
            if not self.sent:
                self.forward()
            self.turn(acknowledge=True)
            self.kafka.add(self.rows[0])
            for rows in (self.rows, self.counted, self.sent, self.doubted):
                rows.pop(0)
            self.gone += 1
            self.turn(acknowledge=True)
        self.now += AWAIT_SECONDS + 1
        self.turn(acknowledge=True)
        self.holds()
        found = answer(self.books)
        assert (found["in_flight"], found["spooled"]) == (0, 0)
        assert all(connection["in_kafka"] == connection["settled"] for connection in found["connections"])
        self.books.close()
        shutil.rmtree(self.folder)


TestDaemonLife = DaemonLife.TestCase
TestDaemonLife.settings = limits(max_examples=60, stateful_step_count=40)
