"""The daemon's recognition of what brokers send again: any habit, killed at any message, against what the broker knows."""

import errno
import mmap
import os
import random
import struct
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from ingest_daemon import probe
from ingest_daemon.accounting import AWAIT_SECONDS, Accounting
from ingest_daemon.bridge import Bridge
from ingest_daemon.broker_access import BrokerFiles
from ingest_daemon.broker_habit import OMITS_DUP, RENUMBERS, SETS_DUP, BrokerHabit
from ingest_daemon.inflight import Connection, InFlight, Pending, State
from ingest_daemon.receive_clock import ReceiveClock
from ingest_daemon.redelivery import Redelivery
from ingest_daemon.settings import Settings
from ingest_daemon.silence import Silence
from ingest_daemon.state_dir import StateDir, boot
from ingest_daemon.transport import Message
from ingest_daemon.unacknowledged import NO_ORIGIN, SLOTS, Candidate, Unacknowledged
from iot_platform_tests.support.servers.habit_broker import HABITS, Habit

WINDOW = 30


class KilledError(Exception):
    """The process ends here."""


@dataclass
class World:
    """A broker, the daemon's loop without its sockets, and Kafka; kept in files as the daemon keeps it."""

    folder: Path
    habit: Habit
    chance: random.Random = field(default_factory=lambda: random.Random(1))
    published: Counter[bytes] = field(default_factory=Counter)
    kafka: list[tuple[bytes, bytes]] = field(default_factory=list)  # header, payload
    queue: list[bytes] = field(default_factory=list)
    in_flight: dict[int, bytes] = field(default_factory=dict)
    last_id: int = 0
    inbox: list[Message] = field(default_factory=list)
    owed: list[Message] = field(default_factory=list)
    pubacks: list[int] = field(default_factory=list)  # on their way
    seen: bool = False
    kill_after: int | None = None
    die_before_write: bool = False
    redelivered: int = 0
    resent: int = 0

    # -- the broker --------------------------------------------------------------------------------------------
    def publish(self, payload: bytes) -> None:
        self.published[payload] += 1
        self.queue.append(payload)
        self.pump()

    def readings(self, count: int, prefix: bytes = b"") -> None:
        """Payloads that differ."""
        for number in range(count):
            self.publish(prefix + b"%d" % number)

    def id(self) -> int:
        while True:
            self.last_id = self.last_id % 1000 + 1
            if self.last_id not in self.in_flight:
                return self.last_id

    def pump(self, *, flagged: bool = False) -> None:
        while self.queue and len(self.in_flight) < WINDOW:
            payload = self.queue.pop(0)
            packet_id = self.id()
            self.in_flight[packet_id] = payload
            self.inbox.append((0x3A if flagged else 0x32, b"t", packet_id, payload))

    def resume(self) -> None:
        again = list(self.in_flight.values())
        if self.habit.new_ids:
            self.last_id, self.in_flight = 0, {}
            for payload in again:
                self.in_flight[self.id()] = payload
        self.owed = [(0x3A if self.habit.dup else 0x32, b"t", packet_id, payload) for packet_id, payload in self.in_flight.items()]
        if self.habit.order == "shuffled":
            self.chance.shuffle(self.owed)
        self.inbox = []
        if self.habit.order != "late":
            self.resend()
        self.pump(flagged=self.habit.false_dup)

    def resend(self) -> None:
        self.redelivered += len(self.owed)
        self.inbox += [message for message in self.owed if message[2] in self.in_flight]
        self.owed = []

    def acknowledged(self, count: int | None = None) -> None:
        """So many PUBACKs arrive."""
        arrived, self.pubacks = self.pubacks[:count], self.pubacks[len(self.pubacks) if count is None else count :]
        for packet_id in arrived:
            self.in_flight.pop(packet_id, None)
        self.pump()

    # -- the daemon --------------------------------------------------------------------------------------------
    def start(self) -> None:
        settings = Settings(mqtt_topic_filter="t", ingest_state_dir=self.folder, ingest_client_id="c", ingest_in_flight_window=WINDOW)
        self.state = StateDir(self.folder, "c")
        self.books = Accounting(self.folder, "c", 0, None, keep_seconds=0, clock=lambda: 0.0)
        self.sent: list[Pending] = []
        sink: Any = SimpleNamespace(
            take=self.take, poll=lambda _seconds: None, push=lambda: None, take_left=lambda: (0, 0), in_doubt=0, working=False,
            awaits_reports=False, level=SimpleNamespace(first=None), problems=[], unfinished=False,
        )  # fmt: skip
        self.stamps = ReceiveClock(self.folder, "c")
        self.window = InFlight()
        silence = Silence(settings.ingest_silent_seconds, self.state.rhythm_file)
        self.bridge = Bridge(
            settings, self.state, self.window, sink, self.books, self.stamps, on_resent=self.came_again, files=BrokerFiles(settings),
            silence=silence, probes=probe.Probes(),
        )  # fmt: skip
        session: Any = SimpleNamespace(
            wait=lambda _seconds, _limit: True, receive=self.receive, acknowledge=self.acknowledge, serve=lambda: None, proven=0,
            subscribed=True, problem=None, close=lambda: None, protocol="5",
        )  # fmt: skip
        self.bridge._session = session
        write = self.bridge._unacknowledged.write

        def write_or_die(*arguments: Any) -> None:
            if self.die_before_write:
                raise KilledError
            write(*arguments)

        self.bridge._unacknowledged.write = write_or_die  # type: ignore[method-assign,assignment]

    def connect(self) -> None:
        self.pubacks = []
        self.bridge._opened(self.seen)
        self.seen = True
        self.resume()

    def receive(self, limit: int, *, readable: bool) -> list[Message]:
        assert readable
        taken, self.inbox = self.inbox[:limit], self.inbox[limit:]
        return taken

    def take(self, messages: list[Pending]) -> None:
        for pending in messages:
            self.window.add(pending)
            if self.kill_after is not None:
                if self.kill_after <= 0:
                    raise KilledError
                self.kill_after -= 1
            self.sent.append(pending)

    def came_again(self, count: int) -> None:
        self.resent += count

    def acknowledge(self, packet_ids: list[int], sequence: int) -> None:
        del sequence
        self.pubacks += packet_ids

    def delivered(self, count: int | None = None) -> None:
        """Kafka takes so many, and says so."""
        taken, self.sent = self.sent[:count], self.sent[len(self.sent) if count is None else count :]
        for pending in taken:
            self.kafka.append((pending.header, pending.value))
            pending.state = State.DELIVERED

    def turn(self) -> None:
        self.bridge._turn(self.bridge._room())

    def through(self) -> None:
        """All that the daemon has taken gets into Kafka, and the broker hears of it."""
        self.turn()
        self.delivered()
        self.turn()
        self.acknowledged()

    def partly_through(self) -> bool:
        """Some of what the daemon takes gets into Kafka, some PUBACKs arrive. Whether it was killed meanwhile; it was started anew then."""
        try:
            self.turn()
            self.delivered(self.chance.randrange(20))
            self.turn()
        except KilledError:
            self.restart()
            return True
        self.acknowledged(self.chance.randrange(20))
        return False

    def restart(self) -> None:
        """kill -9, and another process on a new connection."""
        self.kill()
        self.start()
        self.connect()

    def reconnect(self) -> None:
        """The connection breaks, and there is another."""
        self.lost_connection()
        self.connect()

    def kill(self) -> None:
        """kill -9: what librdkafka had may be in Kafka or not."""
        self.delivered(self.chance.randrange(len(self.sent) + 1))
        self.kill_after, self.die_before_write = None, False
        self.state.close()
        self.stamps.close()
        self.books._finished.close()
        self.books._file.close()

    def lost_connection(self) -> None:
        self.bridge._closed()

    def settle(self) -> None:
        """Everything gets through."""
        for _ in range(1000):
            self.through()
            self.resend()
            if not (self.queue or self.in_flight or self.inbox or self.owed or self.bridge._redelivery.held):
                return
            self.bridge._redelivery._hold_until = 0.0 if self.bridge._redelivery.held else None  # the moment is over
        pytest.fail("something is never acknowledged")

    # -- the drain ---------------------------------------------------------------------------------------------
    def unmarked(self) -> Counter[bytes]:
        """What the drain would not mark: it looks the named receipts up among what lies before."""
        known: dict[tuple[int, int], bytes] = {}
        found: Counter[bytes] = Counter()
        for header, payload in self.kafka:
            version, _, _, _, number, sequence = struct.unpack_from("!BBHqqQ", header)
            count = struct.unpack_from("!qB", header, 28)[1] if version == 2 else 0
            earlier = struct.iter_unpack("!qQq", header[37 : 37 + 24 * count])
            found[payload] += not any(known.get((one[0], one[1])) == payload for one in earlier)
            known[number, sequence] = payload
        return found

    def answer(self) -> dict[str, int]:
        totals = self.books.totals()
        assert totals.difference() == 0
        return {name: getattr(totals, name) for name in ("received", "delivered", "in_flight", "awaiting", "given_up", "redelivered")}


def opened(folder: Path, name: str, chance: random.Random | None = None, known: str | None = None) -> World:
    """A daemon on its first connection to a broker of that habit; `known`: what it has learnt of brokers before."""
    world = World(folder, HABITS[name], chance or random.Random(1))
    world.start()
    if known is not None:
        world.state.remember_habit(known)
    world.connect()
    return world


def learn(world: World) -> None:
    """A connection breaks while messages are in flight that were never acknowledged: what the broker does with them shows its habit."""
    world.readings(5, b"settled ")
    world.through()
    world.readings(5, b"in flight ")
    world.turn()
    world.reconnect()
    world.settle()


@pytest.mark.parametrize("name", HABITS)
@pytest.mark.parametrize("seed", range(6))
def test_any_history_with_kills_marks_second_copies_and_only_them(tmp_path: Path, name: str, seed: int) -> None:
    """Payloads that differ. The first fault tells the habit: something is in flight that was never acknowledged."""
    world = opened(tmp_path, name, random.Random(seed))
    chance = world.chance
    numbers = iter(range(100_000))
    learn(world)
    for _ in range(60):
        for _ in range(chance.randrange(12)):
            world.publish(b"%d" % next(numbers))
        if chance.random() < 0.2:
            world.kill_after = chance.randrange(12)
        world.die_before_write = chance.random() < 0.05
        if world.partly_through():
            continue
        if chance.random() < 0.2:
            world.resend()
        if chance.random() < 0.1:
            world.reconnect()
        world.answer()
    world.kill_after, world.die_before_write = None, False
    world.settle()
    assert world.unmarked() == world.published
    found = world.answer()
    assert found["in_flight"] == 0
    assert found["redelivered"] <= world.redelivered


@pytest.mark.parametrize("name", HABITS)
@pytest.mark.parametrize("seed", range(6))
def test_any_history_of_equal_messages_keeps_as_many_as_were_published(tmp_path: Path, name: str, seed: int) -> None:
    """A few payloads, again and again: a second copy may have no mark, a message must not have one."""
    world = opened(tmp_path, name, random.Random(seed))
    chance = world.chance
    if seed % 2:
        learn(world)
    for step in range(60):
        for _ in range(chance.randrange(12)):
            world.publish(b"%d" % step if chance.random() < 0.05 else b"{}")
        if chance.random() < 0.2:
            world.kill_after = chance.randrange(12)
        if world.partly_through():
            continue
        world.kill_after = None
        if chance.random() < 0.1:
            world.through()
            world.reconnect()
    world.settle()
    kept = world.unmarked()
    assert {payload: (kept[payload], count) for payload, count in world.published.items() if kept[payload] < count} == {}


def test_the_books_hold_without_dup(tmp_path: Path) -> None:
    world = opened(tmp_path, "rumqttd")
    world.readings(20)
    world.turn()
    world.kill()
    world.start()
    assert world.answer()["awaiting"] == 20
    world.connect()
    world.settle()
    assert world.answer() == {"received": 20, "delivered": 20, "in_flight": 0, "awaiting": 0, "given_up": 0, "redelivered": 20}


def test_false_dups_are_no_redeliveries(tmp_path: Path) -> None:
    world = opened(tmp_path, "rabbitmq")
    world.readings(20)
    world.turn()
    world.lost_connection()
    world.readings(100, b"later ")
    world.connect()
    world.settle()
    assert world.answer()["redelivered"] == 20
    assert world.unmarked() == world.published


@pytest.mark.parametrize("known", [False, True])
def test_what_another_client_of_our_id_took_does_not_come_again(tmp_path: Path, known: bool) -> None:
    """Two daemons with one client id: what one had not acknowledged went to the other. Equal messages that come later, some of them first
    of all, are new, and show nothing of the broker."""
    world = opened(tmp_path, "mosquitto", known=SETS_DUP if known else None)
    for first in range(4):
        world.readings(WINDOW, b"%d state " % first)
        world.turn()
        world.delivered()  # and not acknowledged
        world.lost_connection()
        world.in_flight.clear()  # the other one did that
        world.connect()
        for number in range(3, 12):  # published a second time, with others between them but for the first ones
            world.publish(b"%d state %d" % (first, number))
            if number > 3:
                world.publish(b"%d other %d" % (first, number))
        world.settle()
    assert world.unmarked() == world.published
    assert world.state.habit == (SETS_DUP if known else None)


@pytest.mark.parametrize("kill", [False, True])
@pytest.mark.parametrize("known", [False, True])
def test_an_equal_message_after_a_reconnect_is_new_on_a_broker_that_behaves(tmp_path: Path, known: bool, kill: bool) -> None:
    """Constant states and heartbeats of many devices, once each, whose PUBACKs have arrived, although nothing proves it."""
    world = opened(tmp_path, "mosquitto", known=SETS_DUP if known else None)
    for round_ in range(4):
        world.readings(15, b"state ")
        world.turn()
        world.through()
        if kill and round_ < 3:
            world.restart()
        else:
            world.reconnect()
    world.settle()
    assert world.unmarked() == world.published
    assert world.state.habit == (SETS_DUP if known else None)


@pytest.mark.parametrize("name", HABITS)
def test_equal_messages_in_flight_are_counted_right(tmp_path: Path, name: str) -> None:
    """Heartbeats that were never acknowledged come again among new ones: as many are marked as came again."""
    world = opened(tmp_path, name)
    learn(world)
    for _ in range(12):
        world.publish(b"{}")
    world.turn()
    world.delivered()
    world.lost_connection()
    for _ in range(7):
        world.publish(b"{}")
    world.connect()
    world.turn()
    world.publish(b"{}")
    world.settle()
    assert world.unmarked() == world.published


def test_habits_are_learnt_kept_and_given_up(tmp_path: Path) -> None:
    world = opened(tmp_path, "rumqttd")
    world.readings(20)
    world.turn()
    world.restart()
    world.settle()
    assert world.state.habit == OMITS_DUP
    world.kill()
    world.habit = HABITS["mosquitto"]
    world.start()
    assert world.state.habit == OMITS_DUP
    world.connect()
    world.readings(20, b"again ")
    world.turn()
    world.reconnect()
    world.settle()
    assert world.state.habit == SETS_DUP  # the broker was changed, or updated
    assert world.unmarked() == world.published


@pytest.mark.parametrize("acknowledged", [False, True])
def test_a_message_sent_again_on_the_same_connection(tmp_path: Path, acknowledged: bool) -> None:
    world = opened(tmp_path, "nats")
    world.readings(10)
    world.turn()
    if acknowledged:
        world.delivered()
        world.turn()  # the PUBACKs are on their way when the broker loses patience
    world.owed = [(0x3A, b"t", packet_id, payload) for packet_id, payload in world.in_flight.items()]
    world.resend()
    world.settle()
    assert world.answer()["redelivered"] == (10 if acknowledged else 0)  # one record and one acknowledgement for those in flight
    assert world.unmarked() == world.published


def test_what_is_in_flight_is_looked_up_only_for_what_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for all that comes again after a reconnection, thousands in each turn."""
    looks: list[Connection] = []

    def seen(window: InFlight, connection: Connection) -> dict[int, tuple[bytes, bytes]]:
        looks.append(connection)
        return look(window, connection)

    look = InFlight.of
    monkeypatch.setattr(InFlight, "of", seen)
    world = World(tmp_path, HABITS["mosquitto"])
    world.start()
    world.connect()
    learn(world)
    for number in range(20):
        world.publish(b"again %d" % number)
    world.turn()
    world.delivered()
    world.lost_connection()
    world.connect()
    world.turn()
    world.turn()
    assert not looks
    assert world.answer()["redelivered"] == 5 + 20
    world.inbox = [(0x3A, b"t", packet_id, payload) for packet_id, payload in world.in_flight.items()]
    world.turn()
    world.turn()
    assert len(looks) == 2  # once a turn
    assert world.resent == 20
    world.settle()
    assert world.unmarked() == world.published


def test_copies_within_a_turn_of_a_message_and_of_a_probe(tmp_path: Path) -> None:
    world = World(tmp_path, HABITS["nats"])
    world.start()
    world.bridge._probes.follow(["t"])
    world.connect()
    asked = probe.payload("5" * 32)
    for packet_id, content in ((1, b"{}"), (2, asked)):
        world.inbox += [(first, b"t", packet_id, content) for first in (0x32, 0x3A, 0x3A)]
    world.inbox.append((0x3A, b"t", 3, b"{}"))  # another message
    world.turn()
    world.inbox.append((0x3A, b"t", 2, asked))
    world.turn()
    world.delivered()
    world.turn()
    assert world.pubacks == [1, 2, 3]
    assert world.resent == 5
    assert [value for _, value in world.kafka] == [b"{}", b"{}"]
    assert world.answer()["received"] == 2


def test_a_packet_id_that_is_free_again_carries_a_new_message(tmp_path: Path) -> None:
    """The least free packet id for each, and equal payloads."""
    world = opened(tmp_path, "mosquitto")
    for _ in range(5):
        world.last_id = 0
        world.publish(b"{}")
        world.through()
    assert world.unmarked() == world.published
    assert world.answer()["redelivered"] == 0


def lose_in_flight(world: World, *, kill: bool) -> None:
    world.readings(20, b"lost ")
    world.turn()
    if kill:
        world.restart()
    else:
        world.delivered()
        world.reconnect()
    world.settle()


def test_a_full_disk_leaves_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reconnect is as ever; after a kill the DUP flag is all there is, for the drain and for the books."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    world = opened(tmp_path, "mosquitto")
    learn(world)
    monkeypatch.setattr("ingest_daemon.unacknowledged.os.posix_fallocate", full)
    lose_in_flight(world, kill=False)
    assert world.unmarked() == world.published
    before = len(world.kafka)
    lose_in_flight(world, kill=True)
    assert world.answer()["awaiting"] == 0
    assert {header[0] for header, _ in world.kafka[before:]} == {1}
    assert world.answer()["redelivered"] == 5 + 20 + 20


def test_what_a_power_cut_left_counts_as_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = opened(tmp_path, "mosquitto")
    learn(world)
    world.publish(b"1")
    world.turn()
    world.kill()
    monkeypatch.setattr("ingest_daemon.unacknowledged.boot", lambda: 12345)
    world.start()
    assert world.bridge._unacknowledged.left is None
    world.kill()
    monkeypatch.undo()
    world.start()
    assert world.bridge._unacknowledged.left is not None


def test_a_clean_stop_outlives_the_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = opened(tmp_path, "mosquitto")
    world.publish(b"1")
    world.turn()
    world.bridge._unacknowledged.close()
    monkeypatch.setattr("ingest_daemon.unacknowledged.boot", lambda: 12345)
    left = Unacknowledged(world.state.unacknowledged_file).left
    assert left is not None
    assert [(sequence, packet_id) for sequence, _, packet_id, _, _ in left.slots] == [(1, 1)]


class SeenMap(mmap.mmap):
    """Notes for which host the file vouches at each flush; the first so many flushes fail."""

    hosts: ClassVar[list[int]] = []
    failing = 0

    def flush(self, *arguments: Any) -> None:
        self.hosts.append(int.from_bytes(self[48:56], "little"))
        if len(self.hosts) <= self.failing:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().flush(*arguments)


@pytest.mark.parametrize("failing", [0, 1])
def test_a_file_says_that_it_is_whole_only_once_it_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int) -> None:
    monkeypatch.setattr("ingest_daemon.unacknowledged.mmap.mmap", SeenMap)
    monkeypatch.setattr(SeenMap, "hosts", [])
    monkeypatch.setattr(SeenMap, "failing", failing)
    kept = Unacknowledged(tmp_path / "unacknowledged-c")
    kept.opened(7, [])
    kept.close()
    assert SeenMap.hosts == [boot(), 0][: 2 - failing]
    monkeypatch.setattr("ingest_daemon.unacknowledged.boot", lambda: 12345)
    assert (Unacknowledged(tmp_path / "unacknowledged-c").left is None) == bool(failing)


def test_candidates_end_a_minute_after_the_last_one_came(tmp_path: Path) -> None:
    """And are not found again by the next process."""
    world = World(tmp_path, HABITS["rumqttd"])
    now = 1000.0
    world.start()
    world.bridge._redelivery._clock = lambda: now
    world.connect()
    learn(world)
    assert world.bridge._redelivery.candidates
    now += AWAIT_SECONDS + 1
    world.publish(b"in flight 1")  # the same again, long after
    world.settle()
    assert not world.bridge._redelivery.candidates
    world.kill()
    left = Unacknowledged(world.state.unacknowledged_file).left
    assert left is not None
    assert all(one.used for one in left.carried)
    assert world.unmarked() == world.published


def looking_at_all(redelivery: Redelivery, first: int, packet_id: int, digest: int) -> Candidate | None:
    """What `Redelivery.candidate` promises, without any order among the candidates that spares looking at them."""
    alike = [one for one in redelivery._kept._carried if one.digest == digest and not one.used]
    allowed = [one for one in alike if redelivery._habit.allows(one, first, packet_id)] if packet_id else []
    if not allowed:
        return None
    chosen = next((one for one in allowed if one.packet_id == packet_id), allowed[0])
    redelivery._kept.use(chosen)
    redelivery._habit.matched(chosen, first, packet_id)
    return chosen


def left_behind(folder: Path, chance: random.Random, habit: str | None) -> Redelivery:
    """Two connections brought few different messages, over and over, and some PUBACKs were sent; the next one begins."""
    folder.mkdir()
    kept = Unacknowledged(folder / "unacknowledged-c")
    state: Any = SimpleNamespace(habit=habit, remember_habit=lambda _habit: None)
    redelivery = Redelivery(state, kept, WINDOW, lambda: 0.0)
    for number in (1, 2):
        redelivery.opened(number, resumed=True, books={})
        marks = [mark for _ in range(40) for mark in (chance.randrange(9) << 16 | NO_ORIGIN, chance.randrange(6))]
        kept.write(1, marks, 0)
        kept.settled(chance.randrange(40))
    redelivery.opened(3, resumed=True, books={})
    return redelivery


@pytest.mark.parametrize("habit", [None, SETS_DUP, OMITS_DUP, f"{SETS_DUP} {RENUMBERS}", f"{OMITS_DUP} {RENUMBERS}"])
def test_few_looks_find_the_candidate_that_looking_at_all_would(tmp_path: Path, habit: str | None) -> None:
    for seed in range(20):
        short, whole = (left_behind(tmp_path / f"{seed}{name}", random.Random(seed), habit) for name in ("short", "whole"))
        chance, found = random.Random(seed), 0
        for _ in range(200):
            message = chance.choice((0x32, 0x32, 0x3A, 0x33, 0x3B)), chance.randrange(10), chance.randrange(7)
            one, other = short.candidate(*message), looking_at_all(whole, *message)
            assert one == other
            found += one is not None
        assert found
        assert set(short.candidates) == {one.digest for one in whole._kept._carried if not one.used}


def test_a_message_costs_a_few_looks_however_many_candidates_are_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Heartbeats of a fleet, which a broker that keeps packet ids does not send again, and new ones."""
    kept = Unacknowledged(tmp_path / "unacknowledged-c")
    state: Any = SimpleNamespace(habit=SETS_DUP, remember_habit=lambda _habit: None)
    redelivery = Redelivery(state, kept, 5000, lambda: 0.0)
    redelivery.opened(1, resumed=True, books={})
    kept.write(1, [mark for sequence in range(1, 5001) for mark in (sequence << 16 | NO_ORIGIN, 7)], 0)
    redelivery.opened(2, resumed=True, books={})
    allows, looks = BrokerHabit.allows, 0

    def seen(*arguments: Any) -> bool:
        nonlocal looks
        looks += 1
        return allows(*arguments)

    monkeypatch.setattr(BrokerHabit, "allows", seen)
    assert [redelivery.candidate(0x32, 1, 7) for _ in range(1000)] == [None] * 1000
    assert looks <= 2000
    assert all(redelivery.candidate(0x3A, packet_id, 7) for packet_id in range(5000, 0, -1))
    assert looks <= 2000 + 5000
    assert not redelivery.candidates


def test_what_an_earlier_process_left_is_given_up_once_it_is_taken_over(tmp_path: Path) -> None:
    """Some ten megabytes, for as long as the daemon runs."""
    world = World(tmp_path, HABITS["mosquitto"])
    world.start()
    world.connect()
    world.publish(b"1")
    world.turn()
    world.kill()
    world.start()
    assert world.bridge._unacknowledged.left is not None
    world.connect()
    assert world.bridge._unacknowledged.left is None
    world.settle()
    assert world.unmarked() == world.published


def test_repetitions_on_a_connection_are_remembered_by_packet_id(tmp_path: Path) -> None:
    """However long it lasts: a broker without patience, the least free packet ids, and equal messages."""
    world = World(tmp_path, HABITS["nats"])
    world.start()
    world.connect()
    for _ in range(200):
        world.last_id = 0
        for _ in range(3):
            world.publish(b"{}")
        world.turn()
        world.delivered()
        world.turn()  # the PUBACKs are on their way when the broker loses patience, twice
        for _ in range(2):
            world.owed = [(0x3A, b"t", packet_id, payload) for packet_id, payload in world.in_flight.items()]
            world.resend()
            world.turn()
            world.delivered()
            world.turn()
        world.acknowledged()
    assert world.unmarked() == world.published
    assert len(world.bridge._redelivery._same) == 3


def test_more_messages_than_slots_keep_the_newest(tmp_path: Path) -> None:
    kept = Unacknowledged(tmp_path / "unacknowledged-c")
    kept.opened(7, [])
    for first in range(1, SLOTS + 1000, 250):
        kept.write(first, [mark for number in range(first, first + 250) for mark in (9 << 16 | NO_ORIGIN, number)], 0)
    left = kept.look()
    assert left is not None
    assert len(left.slots) == SLOTS
    assert all(sequence == digest == time for sequence, digest, _, _, time in left.slots)
    assert left.slots[-1][0] == first + 249
    assert kept.digest_of(left.slots[0][0] - 1, first + 249) is None
    assert kept.digest_of(first, first + 249) == first
