"""The spool between the sink and its file: whatever Kafka and the disk do and wherever a kill falls, order and counts hold."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest_daemon import spool
from ingest_daemon.credentials import ClientCredentials
from ingest_daemon.errors import SpoolError
from ingest_daemon.inflight import State
from ingest_daemon.spool_store import Range, Row
from iot_platform_tests.support.feeds.sink_rig import Record, Rig, Script


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.close()


def hold(_record: Record) -> str:
    return "hold"


def deliver(_record: Record) -> None:
    return None


def test_unconfirmed_messages_are_acknowledged_once_they_are_on_disk_and_reach_kafka_once(rig: Rig) -> None:
    rig.script.answer = hold
    rig.send(b"1", b"2")
    rig.turns(5, seconds=0.3)
    assert rig.acknowledged == []
    rig.turns(5, seconds=0.3)
    assert rig.acknowledged == [1, 2]
    rig.send(b"3")
    rig.turns(3)
    assert rig.acknowledged == [1, 2, 3]
    assert rig.store.level.entries == rig.spooled == 3
    assert "IOT_KAFKA_BOOTSTRAP_SERVERS" in rig.sink.problems[0]
    rig.script.answer = deliver
    rig.turns(10)
    rig.send(b"4")
    rig.turns(10)
    assert rig.values() == [b"1", b"2", b"3", b"4"]
    assert (rig.delivered, rig.spooled, rig.store.level.entries, rig.sink.problems) == (4, 0, 0, [])


def test_a_dead_disk_does_not_disturb_the_direct_way(rig: Rig) -> None:
    rig.disk.hanging = True
    for number in range(20):
        rig.send(b"%d" % number)
        rig.turns(2, seconds=1)
    assert rig.delivered == 20
    assert rig.sink.problems == []


def test_a_report_outruns_a_disk_that_hangs(rig: Rig) -> None:
    rig.script.answer = hold
    rig.disk.hanging = True
    rig.send(b"1")
    rig.turns(5, seconds=1)
    rig.script.answer = deliver
    rig.turns(1)
    assert rig.acknowledged == []  # on disk or not? the commit will tell
    rig.turns(10, seconds=1)
    assert (rig.acknowledged, rig.delivered) == ([1], 1)
    rig.disk.hanging = False
    rig.turns(5)
    assert (rig.delivered, rig.spooled, rig.store.level.entries) == (1, 0, 0)
    assert rig.values() == [b"1"]


def test_without_room_nothing_is_acknowledged_and_kafka_alone_settles(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_inserts: list[Row], _deletes: list[Range]) -> None:
        raise SpoolError("full (IOT_INGEST_SPOOL_BYTES)")

    monkeypatch.setattr(rig.store, "write", full)
    rig.script.answer = hold
    rig.send(b"1")
    rig.turns(5, seconds=1)
    rig.send(b"2")
    rig.turns(5, seconds=1)
    assert rig.acknowledged == []
    assert "IOT_INGEST_SPOOL_BYTES" in " ".join(rig.sink.problems)
    rig.script.answer = deliver
    rig.turns(5)
    rig.send(b"3")
    rig.turns(5)
    assert rig.acknowledged == [1, 2, 3]
    assert (rig.values(), rig.delivered, rig.sink.problems) == ([b"1", b"2", b"3"], 3, [])


def test_when_there_is_room_again_the_spool_goes_on_by_itself(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_inserts: list[Row], _deletes: list[Range]) -> None:
        raise SpoolError("full (IOT_INGEST_SPOOL_BYTES)")

    rig.script.answer = hold
    with monkeypatch.context() as patch:
        patch.setattr(rig.store, "write", full)
        rig.send(b"1", b"2")
        rig.turns(5, seconds=1)
        assert rig.acknowledged == []
    rig.turns(5, seconds=1)
    assert rig.acknowledged == [1, 2]
    assert rig.spooled == 2


def test_deletions_that_the_disk_refuses_are_made_up_for_later(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.script.answer = hold
    rig.send(*(b"%d" % number for number in range(100)))
    rig.turns(5, seconds=1)
    assert rig.spooled == 100

    def full(_inserts: list[Row], _deletes: list[Range]) -> None:
        raise SpoolError("disk full (IOT_INGEST_STATE_DIR)")

    with monkeypatch.context() as patch:
        patch.setattr(rig.store, "write", full)
        rig.script.answer = deliver
        rig.turns(10)
        rig.send(b"100")
        rig.turns(10)
        assert len(rig.values()) == 101
        assert (rig.delivered, rig.spooled) == (1, 100)  # still on disk, and a kill would bring them again
        assert "IOT_INGEST_STATE_DIR" in rig.sink.problems[0]
    rig.turns(10, seconds=1)
    assert (rig.delivered, rig.spooled, rig.store.level.entries) == (101, 0, 0)


def test_entries_of_the_last_run_come_first(tmp_path: Path) -> None:
    first = Rig(tmp_path)
    first.script.answer = hold
    first.send(*(b"old %d" % number for number in range(250)))
    first.turns(5, seconds=1)
    assert first.spooled == 250
    first.close()
    second = Rig(tmp_path, connection=2)
    second.send(b"new")
    second.turns(20)
    assert second.values() == [*(b"old %d" % number for number in range(250)), b"new"]
    assert second.store.level.entries == 0
    second.close()


def test_entries_read_before_a_failure_do_not_overtake_the_failed_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "READ_ROWS", 50)
    first = Rig(tmp_path)
    first.script.answer = hold
    first.send(*(b"%d" % number for number in range(300)))
    first.turns(5, seconds=1)
    first.close()
    rig = Rig(tmp_path, connection=2)
    rig.script.answer = lambda record: None if int(record[1]) < 100 else "hold"
    while len(rig.script.records) < 150:
        rig.turns(1)
    assert rig.disk.work is not None  # it reads on
    rig.disk.hanging = True
    rig.script.answer = lambda _record: KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)
    rig.turns(1)
    rig.disk.hanging = False
    rig.script.answer = deliver
    rig.turns(20, seconds=1)
    assert rig.values() == [b"%d" % number for number in range(300)]
    rig.close()


def test_leaving_hands_what_is_unsettled_to_the_spool(rig: Rig) -> None:
    rig.script.answer = hold
    rig.send(b"1", b"2")
    rig.turns(1)
    rig.sink.leave()
    rig.sink.spool_all()
    rig.turns(3)
    assert rig.acknowledged == [1, 2]
    assert not rig.sink.unfinished


class Kafka(Script):
    """Keeps the order per key, as librdkafka does; `trouble` says what happens to a key's records."""

    def __init__(self) -> None:
        super().__init__()
        self.trouble: dict[bytes, str] = {}
        self.batch_limit = 10**9
        self.answer = self._answer

    def _answer(self, record: Record) -> Any:
        if self.producers[-1].config["batch.size"] > self.batch_limit:
            return KafkaError(KafkaError.MSG_SIZE_TOO_LARGE)
        trouble = self.trouble.get(record[2])
        return KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED) if trouble == "fail" else trouble


MEMORY = Path("/dev/shm")  # noqa: S108  thousands of fsyncs; only kills are at stake here
KEYS = [b"a", b"b", b"c"]


class World:
    """Runs of one daemon on one file, an MQTT broker that sends again what was not acknowledged, and Kafka."""

    def __init__(self, data: st.DataObject, folder: Path) -> None:
        self.data, self.folder = data, folder
        self.kafka = Kafka()
        self.disk_full = False
        self.runs = 0
        self.arrival: dict[tuple[int, int], int] = {}  # (connection, sequence) → position of arrival
        self.sent = 0
        self.acknowledged: set[bytes] = set()
        self.unacknowledged: list[tuple[bytes, bytes]] = []
        self.start()

    def start(self) -> None:
        self.runs += 1
        self.rig = Rig(self.folder, self.kafka, self.runs)
        write = self.rig.store.write

        def maybe(inserts: list[Row], deletes: list[Range]) -> None:
            if self.disk_full:
                raise SpoolError("disk full")
            write(inserts, deletes)

        self.rig.store.write = maybe  # type: ignore[method-assign]
        again, self.unacknowledged = self.unacknowledged, []
        for key, value in again:
            self.send(key, value)

    def send(self, key: bytes, value: bytes) -> None:
        (message,) = self.rig.send(value, key=key)
        self.arrival[self.runs, message.sequence] = len(self.arrival)
        self.unacknowledged.append((key, value))

    def turn(self) -> None:
        before = len(self.rig.acknowledged)
        self.rig.turns(1, seconds=self.data.draw(st.sampled_from([0.0, 0.5, 3.0])))
        count = len(self.rig.acknowledged) - before
        self.acknowledged |= {value for _, value in self.unacknowledged[:count]}
        del self.unacknowledged[:count]

    def reach(self) -> None:
        """What librdkafka has out may have reached Kafka, in order per key."""
        for producer in self.kafka.producers:
            reached = {key: self.data.draw(st.booleans(), label="reached") for key in KEYS}
            self.kafka.delivered += [record for record, _ in producer.queue if reached[record[2]]]

    def fatal(self) -> None:
        """The producer ends for good; so do its successors, for a while or not."""
        self.reach()
        self.kafka.fatal_code = KafkaError.CLUSTER_AUTHORIZATION_FAILED if self.data.draw(st.booleans(), label="lasting") else None
        self.kafka.producers[-1].fail(KafkaError.CLUSTER_AUTHORIZATION_FAILED)

    def new_files(self) -> None:
        """Certificates change, perhaps to ones that librdkafka refuses."""
        self.kafka.unmakable = self.data.draw(st.booleans(), label="refused")
        self.rig.credentials.current = ClientCredentials(None, b"%d" % self.data.draw(st.integers(0, 3)))

    def kill(self) -> None:
        """The round under way is committed or not."""
        self.rig.disk.hanging = False
        if self.data.draw(st.booleans(), label="committed"):
            self.rig.disk.poll()
        self.reach()
        for producer in self.kafka.producers:
            producer.queue.clear()
        self.kafka.unmakable = False
        self.rig.close()
        self.start()

    def heal(self) -> None:
        self.kafka.trouble.clear()
        self.kafka.fatal_code, self.kafka.unmakable, self.kafka.batch_limit = None, False, 10**9
        self.disk_full = self.rig.disk.hanging = False
        for _ in range(60):
            before = len(self.rig.acknowledged)
            self.rig.turns(1, seconds=1)
            del self.unacknowledged[: len(self.rig.acknowledged) - before]


@settings(max_examples=150)
@given(st.data())
def test_any_history_keeps_every_message_in_order(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        world = World(data, Path(folder))
        for _ in range(data.draw(st.integers(1, 60))):
            match data.draw(
                st.sampled_from(["send", "send", "turn", "turn", "turn", "trouble", "disk", "kill", "fatal", "files", "limit"])
            ):
                case "send":
                    for _ in range(data.draw(st.integers(1, 4))):
                        world.sent += 1
                        world.send(data.draw(st.sampled_from(KEYS)), b"%d" % world.sent)
                case "turn":
                    world.turn()
                case "trouble":
                    world.kafka.trouble = data.draw(st.dictionaries(st.sampled_from(KEYS), st.sampled_from(["hold", "fail"])))
                case "disk":
                    world.disk_full = data.draw(st.booleans())
                    world.rig.disk.hanging = data.draw(st.booleans())
                case "kill":
                    world.kill()
                case "fatal":
                    world.fatal()
                case "files":
                    world.new_files()
                case "limit":
                    world.kafka.batch_limit = data.draw(st.sampled_from([10**9, 300_000, 20_000]))
        world.heal()
        rig = world.rig
        assert not world.unacknowledged
        assert (len(rig.in_flight), rig.store.level.entries, rig.sink.problems) == (0, 0, [])
        assert {int(value) for value in rig.values()} == set(range(1, world.sent + 1))
        check_order(world)
        rig.close()


def check_order(world: World) -> None:
    """The first copies of each key are in order of arrival, and every copy of a message is the same record."""
    first: dict[tuple[int, int], Record] = {}
    for record in world.kafka.delivered:
        connection, sequence = record[3][0][1].split(b"/")
        same = first.setdefault((int(connection), int(sequence)), record)
        assert same == record
    for key in KEYS:
        positions = [world.arrival[identity] for identity, record in first.items() if record[2] == key]
        assert positions == sorted(positions)


def test_state_is_falsy_only_in_flight() -> None:
    assert [state for state in State if not state] == [State.IN_FLIGHT]
