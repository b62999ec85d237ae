"""Any sequence of what can happen to the sink, against what holds at each moment.

Without a kill (test_ingest_spool has those): so no message may reach Kafka even once more than needed.
"""

import tempfile
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaError
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ingest_daemon.credentials import ClientCredentials
from ingest_daemon.errors import SpoolError
from ingest_daemon.inflight import Pending, Place
from ingest_daemon.spool_store import Range, Row
from iot_platform_tests.support.feeds.sink_rig import Record, Rig, Script

RETRIABLE = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)
REFUSED = KafkaError(KafkaError.INVALID_RECORD)
MEMORY = Path("/dev/shm")  # noqa: S108  thousands of fsyncs; no power cut is at stake here
ANSWERS = st.sampled_from([None, "hold", "hold", RETRIABLE])


class Kafka(Script):
    """Reports in order per key, all that is due at once or one record at a time. What librdkafka has behind a record that failed fails too,
    whenever that is reported. Values that end in "bad" are refused."""

    def __init__(self) -> None:
        super().__init__()
        self.answer = self._answer
        self.trouble: dict[bytes, Any] = {}  # what becomes of a key's records; without: delivered
        self.dead_letters: Any = None
        self.at_once = 1000  # of a key
        self._reports: dict[bytes, int] = {}
        self._reported: set[int] = set()
        self._doomed: set[int] = set()

    def next_turn(self) -> None:
        self._reports = {}

    def _answer(self, record: Record) -> Any:
        topic, value, key, _ = record
        trouble = self.dead_letters if topic == "iot-dead-letter" else self.trouble.get(key)
        if isinstance(trouble, str) or self._reports.get(key, 0) >= self.at_once:
            return "hold"
        self._reports[key] = self._reports.get(key, 0) + 1
        self._reported.add(id(record))
        if id(record) in self._doomed:
            return RETRIABLE
        if trouble is not None:
            self._doomed |= {id(other) for other in self.records if other[0] == topic and other[2] == key} - self._reported
            return trouble
        return REFUSED if topic == "iot-messages" and value.endswith(b"bad") else None


class AnySequence(RuleBasedStateMachine):
    """One daemon on one file. Each message has a number as its value, behind which may stand "bad"."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None)
        self.kafka = Kafka()
        self.messages: list[Pending] = []
        self.disk_full = self.left = False

    @initialize(window=st.sampled_from([4, 1000]))
    def start(self, window: int) -> None:
        self.rig = Rig(Path(self.folder.name), self.kafka, ingest_in_flight_window=window)
        write = self.rig.store.write

        def maybe(inserts: list[Row], deletes: list[Range]) -> None:
            if self.disk_full:
                raise SpoolError("disk full")
            write(inserts, deletes)

        self.rig.store.write = maybe  # type: ignore[method-assign]

    # -- what happens ------------------------------------------------------------------------------------------
    @precondition(lambda self: not self.left)
    @rule(key=st.sampled_from([b"a", b"a", b"b"]), kinds=st.lists(st.sampled_from(["", "", "bad"]), min_size=1, max_size=4))
    def messages_come(self, key: bytes, kinds: list[str]) -> None:
        for kind in kinds:
            self.messages += self.rig.send(b"%d%s" % (len(self.messages) + 1, kind.encode()), key=key)

    @rule(count=st.integers(1, 3), seconds=st.sampled_from([0.0, 0.6, 3.0, 12.0]))
    def time_passes(self, count: int, seconds: float) -> None:
        for _ in range(count):
            self.kafka.next_turn()
            self.rig.turns(1, seconds)

    @rule(keys=st.sampled_from([[b"a"], [b"b"], [b"a", b"b"]]), answer=ANSWERS, at_once=st.sampled_from([1, 1000]))
    def kafka_answers(self, keys: list[bytes], answer: Any, at_once: int) -> None:
        self.kafka.trouble.update(dict.fromkeys(keys, answer))
        self.kafka.at_once = at_once

    @rule(answer=ANSWERS)
    def dead_letter_topic_answers(self, answer: Any) -> None:
        self.kafka.dead_letters = answer

    @rule(lasting=st.booleans(), which=st.integers(0, 3))
    def producer_ends(self, lasting: bool, which: int) -> None:
        """The latest one, or the one before: that of refused messages, say."""
        self.kafka.fatal_code = KafkaError.CLUSTER_AUTHORIZATION_FAILED if lasting else None
        producers = self.kafka.producers
        producers[-1 - which % min(2, len(producers))].fail(KafkaError.CLUSTER_AUTHORIZATION_FAILED)

    @rule(full=st.booleans())
    def queue(self, full: bool) -> None:
        self.kafka.full = full

    @rule(full=st.sampled_from([False, False, True]), hanging=st.booleans())
    def disk(self, full: bool, hanging: bool) -> None:
        self.disk_full, self.rig.disk.hanging = full, hanging

    @rule(password=st.sampled_from([None, "other"]), files=st.sampled_from([b"1", b"2"]), unmakable=st.sampled_from([False, False, True]))
    def credentials_change(self, password: str | None, files: bytes, unmakable: bool) -> None:
        self.kafka.unmakable = unmakable
        self.rig.credentials.current = ClientCredentials(password, files)

    @precondition(lambda self: len(self.messages) > 5)
    @rule(how=st.sampled_from(["not yet"] * 4 + ["at leisure", "now"]))
    def leave(self, how: str) -> None:
        if how != "not yet":
            self.left = True
            self.rig.sink.leave()
        if how == "now":
            self.rig.sink.spool_all()

    # -- what holds at each moment -----------------------------------------------------------------------------
    def in_kafka(self) -> list[bytes]:
        return [value for _, value, _, _ in self.kafka.delivered]

    def on_disk(self) -> set[bytes]:
        return {row[5] for row in self.rig.store.read(0, 10_000, 2**30)}

    @invariant()
    def each_is_acknowledged_once_in_order_and_only_when_safe(self) -> None:
        acknowledged = self.rig.acknowledged
        assert acknowledged == [message.sequence for message in self.messages[: len(acknowledged)]]
        safe = {*self.in_kafka(), *self.on_disk()}
        assert [message.value for message in self.messages[: len(acknowledged)] if message.value not in safe] == []

    @invariant()
    def none_reaches_kafka_twice_or_out_of_order(self) -> None:
        """Refused messages go their own way."""
        values = self.in_kafka()
        assert len(values) == len(set(values))
        for key in (b"a", b"b"):
            numbers = [int(value) for _, value, of, _ in self.kafka.delivered if of == key and not value.endswith(b"bad")]
            assert numbers == sorted(numbers)

    @invariant()
    def the_others_are_out_or_kept_or_will_be_sent(self) -> None:
        somewhere = {*self.in_kafka(), *self.on_disk()}
        somewhere |= {record[1] for producer in self.kafka.producers for record, _ in producer.queue}
        somewhere |= {message.value for message in self.rig.spool.in_memory()}
        somewhere |= {message.value for message in self.rig.in_flight.queue if message.place is Place.REFUSED}
        assert [message.value for message in self.messages if message.value not in somewhere] == []

    # -- the end -----------------------------------------------------------------------------------------------
    def teardown(self) -> None:
        try:
            self.heal()
            self.check_end()
        finally:
            self.rig.close()
            self.folder.cleanup()

    def heal(self) -> None:
        self.kafka.trouble, self.kafka.dead_letters, self.kafka.at_once = {}, None, 1000
        self.kafka.full, self.kafka.fatal_code, self.kafka.unmakable = False, None, False
        self.disk_full = self.rig.disk.hanging = False
        if self.left:
            self.rig.sink.spool_all()
        for _ in range(60):
            self.kafka.next_turn()
            self.rig.turns(1, seconds=2)

    def check_end(self) -> None:
        rig = self.rig
        self.each_is_acknowledged_once_in_order_and_only_when_safe()
        self.none_reaches_kafka_twice_or_out_of_order()
        assert (len(rig.acknowledged), len(rig.in_flight)) == (len(self.messages), 0)
        on_disk = self.on_disk()
        assert on_disk.isdisjoint(self.in_kafka())
        assert {*on_disk, *self.in_kafka()} == {message.value for message in self.messages}
        assert (rig.spooled, rig.delivered + rig.dead_lettered) == (len(on_disk), len(self.in_kafka()))
        if not self.left:
            assert (on_disk, rig.sink.problems) == (set(), [])
            assert rig.dead_lettered == sum(message.value.endswith(b"bad") for message in self.messages)


AnySequence.TestCase.settings = settings(max_examples=150, stateful_step_count=50)
TestAnySequence = AnySequence.TestCase
