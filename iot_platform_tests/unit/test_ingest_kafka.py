"""What a delivery failure leads to: sent again, dead-lettered or a new producer; never settled without a good report.

A real broker can't be told to fail in these ways on demand, so the producer is a scripted one; the good and the
too-large path run against a real broker in integration/test_ingest_flow.
"""

from collections.abc import Callable
from typing import Any

from confluent_kafka import KafkaError, KafkaException

from ingest_daemon.inflight import Connection, Pending, State
from ingest_daemon.kafka import KafkaSink
from ingest_daemon.settings import Settings

Record = tuple[str, bytes, bytes, list[tuple[str, bytes]]]


class Script:
    """All producers of a sink; `answer` says what becomes of a record: None delivered, an error, or "hold"."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.delivered: list[Record] = []
        self.producers: list[ScriptedProducer] = []
        self.answer: Callable[[Record], Any] = lambda _record: None
        self.full = False

    def make(self, config: dict[str, Any], **_options: Any) -> "ScriptedProducer":
        self.producers.append(ScriptedProducer(self, config))
        return self.producers[-1]


class ScriptedProducer:
    def __init__(self, script: Script, config: dict[str, Any]) -> None:
        self.script, self.config = script, config
        self.queue: list[tuple[Record, Any]] = []
        self.purged = False

    def produce(self, topic: str, value: bytes, key: bytes, on_delivery: Any, headers: list[tuple[str, bytes]]) -> None:
        if self.script.full:
            raise BufferError
        if len(value) > self.config["message.max.bytes"]:
            raise KafkaException(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE))
        record = (topic, value, key, headers)
        self.script.records.append(record)
        self.queue.append((record, on_delivery))

    def poll(self, _timeout: float) -> int:
        queue, self.queue = self.queue, []
        for record, report in queue:
            error = KafkaError(KafkaError._PURGE_QUEUE) if self.purged else self.script.answer(record)
            if isinstance(error, str):
                self.queue.append((record, report))
                continue
            if error is None:
                self.script.delivered.append(record)
            report(error, None)
        return len(queue)

    def purge(self, **_options: Any) -> None:
        self.purged = True

    def __len__(self) -> int:
        return len(self.queue)


class Rig:
    def __init__(self, **settings: Any) -> None:
        self.script = Script()
        self.now = 0.0
        self.sink = KafkaSink(Settings(**settings), factory=self.script.make, clock=lambda: self.now)
        self.connection = Connection(1, self.sink.failed)

    def send(self, *values: bytes) -> list[Pending]:
        made = []
        for value in values:
            self.connection.sequence += 1
            message = Pending(self.connection, self.connection.sequence, self.connection.sequence, b"topic", value, b"header")
            self.sink.send(message)
            made.append(message)
        return made

    def turns(self, count: int = 10, seconds: float = 0.0) -> None:
        for _ in range(count):
            self.now += seconds
            self.sink.poll()


def test_a_passing_failure_is_sent_again_in_arrival_order() -> None:
    rig = Rig()
    failing = {b"1", b"2"}
    rig.script.answer = lambda record: KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART) if record[1] in failing else None
    messages = rig.send(b"1", b"2")
    rig.turns()
    assert rig.sink.stalled
    assert "IOT_KAFKA_TOPIC" in (rig.sink.problem or "")
    assert [message.state for message in messages] == [State.IN_FLIGHT] * 2
    failing.clear()
    messages += rig.send(b"3")
    rig.turns(seconds=1)
    assert not rig.sink.stalled
    assert [record[1] for record in rig.script.delivered] == [b"1", b"2", b"3"]
    assert all(message.state is State.DELIVERED for message in messages)


def test_a_full_queue_keeps_messages_and_their_order() -> None:
    rig = Rig()
    rig.script.full = True
    messages = rig.send(b"1", b"2", b"3")
    rig.turns()
    assert rig.sink.stalled
    rig.script.full = False
    rig.turns()
    assert [record[1] for record in rig.script.delivered] == [b"1", b"2", b"3"]
    assert all(message.state is State.DELIVERED for message in messages)


def test_a_fatal_error_replaces_the_producer_and_loses_nothing() -> None:
    rig = Rig()
    rig.script.answer = lambda _record: "hold"
    messages = rig.send(b"1", b"2")
    rig.turns()
    fatal = KafkaError(KafkaError.INVALID_PRODUCER_EPOCH, "fenced", fatal=True)
    rig.script.producers[0].config["error_cb"](fatal)
    rig.turns(1)
    assert len(rig.script.producers) == 2
    assert rig.script.producers[0].purged
    rig.script.answer = lambda _record: None
    rig.turns(seconds=1)
    assert [record[1] for record in rig.script.delivered] == [b"1", b"2"]
    assert all(message.state is State.DELIVERED for message in messages)


def test_a_fatal_delivery_report_replaces_the_producer() -> None:
    rig = Rig()
    answers = [KafkaError(KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, "gap", fatal=True)]
    rig.script.answer = lambda _record: answers.pop() if answers else None
    (message,) = rig.send(b"1")
    rig.turns(seconds=1)
    assert len(rig.script.producers) == 2
    assert message.state is State.DELIVERED


def test_a_small_message_refused_with_its_batch_is_delivered_alone() -> None:
    rig = Rig()
    seen: list[bytes] = []

    def answer(record: Record) -> Any:
        seen.append(record[1])
        return KafkaError(KafkaError.MSG_SIZE_TOO_LARGE) if seen.count(record[1]) == 1 else None

    rig.script.answer = answer
    (message,) = rig.send(b"small")
    rig.turns()
    assert message.state is State.DELIVERED
    assert [record[0] for record in rig.script.delivered] == ["iot-messages"]
    assert rig.script.producers[1].config["batch.num.messages"] == 1


def too_large_for(limits: dict[str, int]) -> Callable[[Record], Any]:
    return lambda record: KafkaError(KafkaError.MSG_SIZE_TOO_LARGE) if len(record[1]) > limits[record[0]] else None


def test_a_message_too_large_for_the_topic_is_dead_lettered_whole() -> None:
    rig = Rig()
    rig.script.answer = too_large_for({"iot-messages": 10, "iot-dead-letter": 1000})
    (message,) = rig.send(b"x" * 100)
    rig.turns()
    assert message.state is State.DEAD_LETTERED
    ((topic, value, key, headers),) = rig.script.delivered
    assert (topic, value, key) == ("iot-dead-letter", b"x" * 100, b"topic")
    assert dict(headers)["iot"] == b"header"
    assert b"too large" in dict(headers)["iot-error"].lower()


def test_a_message_too_large_for_everything_is_kept_in_parts_that_fit() -> None:
    rig = Rig(ingest_max_record_bytes=1_000_000)
    rig.script.answer = too_large_for({"iot-messages": 100_000, "iot-dead-letter": 100_000})
    payload = bytes(range(256)) * 8000
    (message,) = rig.send(payload)
    rig.turns(20)
    assert message.state is State.DEAD_LETTERED
    parts = {dict(record[3])["iot-part"]: record[1] for record in rig.script.delivered}
    count = max(int(name.split(b"/")[1]) for name in parts)
    assert b"".join(parts[b"%d/%d" % (index + 1, count)] for index in range(count)) == payload


def test_a_dead_letter_topic_that_is_away_delays_the_acknowledgement() -> None:
    rig = Rig()
    missing = True

    def answer(record: Record) -> Any:
        if record[0] == "iot-messages":
            return KafkaError(KafkaError.INVALID_RECORD)
        return KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART) if missing else None

    rig.script.answer = answer
    (message,) = rig.send(b"1")
    rig.turns(10, seconds=1)
    assert message.state is State.IN_FLIGHT
    missing = False
    rig.turns(10, seconds=1)
    assert message.state is State.DEAD_LETTERED
