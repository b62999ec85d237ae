"""What a delivery failure leads to: sent again, dead-lettered or a new producer; never settled without a good report.

The order of events is the test's here, so the producer is a scripted one; the real one and a real broker: integration/test_ingest_flow,
test_ingest_rights, test_ingest_refusals.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError

from ingest_daemon.credentials import ClientCredentials
from ingest_daemon.inflight import Place, State
from iot_platform_tests.support.feeds.sink_rig import Record, Rig


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Rig]]:
    made: list[Rig] = []

    def one(**settings: Any) -> Rig:
        made.append(Rig(tmp_path, **settings))
        return made[-1]

    yield one
    for rig in made:
        rig.close()


@pytest.fixture
def rig(make: Callable[..., Rig]) -> Rig:
    return make()


def test_a_passing_failure_is_sent_again_in_arrival_order(rig: Rig) -> None:
    failing = {b"1", b"2"}
    rig.script.answer = lambda record: KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART) if record[1] in failing else None
    messages = rig.send(b"1", b"2")
    rig.turns()
    assert "IOT_KAFKA_TOPIC" in rig.sink.problems[0]
    assert [message.state for message in messages] == [State.SPOOLED] * 2
    failing.clear()
    rig.send(b"3")
    rig.turns(20, seconds=1)
    assert rig.sink.problems == []
    assert rig.values() == [b"1", b"2", b"3"]
    assert (rig.delivered, rig.spooled, len(rig.in_flight)) == (3, 0, 0)


def test_a_full_queue_keeps_messages_and_their_order(rig: Rig) -> None:
    rig.script.full = True
    rig.send(b"1", b"2", b"3")
    rig.turns()
    assert rig.spooled == 3
    rig.script.full = False
    rig.turns()
    rig.send(b"4")
    rig.turns()
    assert rig.values() == [b"1", b"2", b"3", b"4"]
    assert rig.delivered == 4


def test_a_fatal_error_replaces_the_producer_and_loses_nothing(rig: Rig) -> None:
    rig.script.answer = lambda _record: "hold"
    rig.send(b"1", b"2")
    rig.turns()
    rig.script.producers[0].fail(KafkaError.INVALID_PRODUCER_EPOCH)
    rig.turns(1)
    assert [rig.in_flight.queue[0].place, len(rig.script.producers)] == [Place.NOWHERE, 1]
    rig.send(b"3")  # meanwhile
    rig.script.answer = lambda _record: None
    rig.turns(seconds=1)
    assert len(rig.script.producers) == 2
    assert rig.values() == [b"1", b"2", b"3"]
    assert (rig.delivered, rig.sink.problems) == (3, [])


def test_a_producer_that_is_dead_before_poll_says_why_is_replaced(rig: Rig) -> None:
    rig.script.producers[0].fail(KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER)
    rig.send(b"1")
    rig.turns(seconds=1)
    assert len(rig.script.producers) == 2
    assert (rig.values(), rig.delivered) == ([b"1"], 1)


def test_without_the_right_to_write_messages_are_spooled_and_producers_come_with_back_off(rig: Rig) -> None:
    script = rig.script
    script.fatal_code = KafkaError.CLUSTER_AUTHORIZATION_FAILED
    script.producers[0].fail(script.fatal_code)
    for _ in range(120):
        rig.send(b"x")
        rig.turns(10, seconds=0.1)
    assert rig.spooled == 120
    assert len(rig.acknowledged) == 120
    assert 5 < len(script.producers) < 15  # in two minutes
    (problem,) = rig.sink.problems
    for part in ("lacks the right to WRITE", "IDEMPOTENT_WRITE", "kafka-acls", "--topic iot-messages", "IOT_KAFKA_SECURITY_PROTOCOL"):
        assert part in problem
    script.fatal_code = None
    rig.turns(200, seconds=0.1)
    assert (rig.delivered, rig.spooled, rig.sink.problems) == (120, 0, [])
    assert len(rig.values()) == 120


def test_a_right_that_is_back_shows_without_traffic(rig: Rig) -> None:
    rig.script.producers[0].fail(KafkaError.CLUSTER_AUTHORIZATION_FAILED)
    rig.turns(1)
    assert rig.sink.problems
    rig.turns(100, seconds=0.1)
    assert rig.sink.problems == []
    rig.send(b"1")
    rig.turns(1)
    assert rig.store.level.entries == 0


def test_a_fatal_error_on_the_way_to_the_dead_letter_topic_is_named_and_tried_again(rig: Rig) -> None:
    rig.script.answer = lambda record: KafkaError(KafkaError.INVALID_RECORD) if record[0] == "iot-messages" else None
    rig.send(b"bad")
    rig.script.fatal_code = KafkaError.CLUSTER_AUTHORIZATION_FAILED
    rig.turns(300, seconds=0.1)
    assert (rig.spooled, rig.dead_lettered) == (1, 0)
    assert "lacks the right to WRITE" in rig.sink.problems[0]
    assert "IOT_KAFKA_DEAD_LETTER_TOPIC" in rig.sink.problems[0]
    assert 3 < len(rig.script.producers) < 10
    rig.send(b"also bad")
    rig.script.fatal_code = None
    rig.turns(300, seconds=0.1)
    assert (rig.spooled, rig.dead_lettered, rig.sink.problems) == (0, 2, [])


def test_a_new_password_goes_to_producers_that_are_idle_too(rig: Rig) -> None:
    rig.script.answer = lambda record: None if record[0] == "iot-dead-letter" else KafkaError(KafkaError.INVALID_RECORD)
    rig.send(b"bad")
    rig.turns()
    rig.credentials.current = ClientCredentials("new", rig.credentials.current.files)
    rig.turns(1)
    assert [producer.password for producer in rig.script.producers] == [("", "new")] * 2


def test_new_certificates_bring_a_new_producer_once_the_present_one_has_finished(rig: Rig) -> None:
    rig.script.answer = lambda _record: "hold"
    rig.send(b"1")
    rig.turns(1)
    rig.credentials.current = ClientCredentials(None, b"new")
    rig.turns(1)
    rig.send(b"2")
    rig.turns(5, seconds=0.1)
    assert [len(producer) for producer in rig.script.producers] == [1, 0]
    rig.script.answer = lambda _record: None
    rig.turns(5)
    assert rig.values() == [b"1", b"2"]
    assert [record[1] for record in rig.script.records] == [b"1", b"2"]
    assert (rig.delivered, rig.sink.problems) == (2, [])


def test_certificates_that_librdkafka_refuses_leave_the_present_producer_at_work(rig: Rig) -> None:
    rig.script.unmakable = True
    rig.credentials.current = ClientCredentials(None, b"half written")
    for _ in range(3):
        rig.send(b"x")
        rig.turns(10, seconds=1)
    assert (rig.delivered, rig.store.level.entries, len(rig.script.producers)) == (3, 0, 1)
    rig.script.unmakable = False
    rig.turns(10, seconds=1)
    rig.send(b"y")
    rig.turns()
    assert (rig.delivered, len(rig.script.producers)) == (4, 2)


def test_a_first_refusal_while_librdkafka_refuses_the_certificates_waits(rig: Rig) -> None:
    rig.script.answer = lambda record: KafkaError(KafkaError.INVALID_RECORD) if record[0] == "iot-messages" else None
    rig.script.unmakable = True
    rig.send(b"bad")
    rig.turns(10, seconds=1)
    assert (rig.dead_lettered, len(rig.script.producers)) == (0, 1)
    assert "ssl.certificate.location" in rig.sink.problems[0]
    rig.script.unmakable = False
    rig.turns(10, seconds=1)
    assert (rig.dead_lettered, rig.spooled, rig.sink.problems) == (1, 0, [])


@pytest.mark.parametrize("also_at_the_end", [False, True])
def test_leaving_with_a_dead_producer_is_quick(rig: Rig, *, also_at_the_end: bool) -> None:
    rig.script.answer = lambda _record: "hold"
    rig.send(b"1")
    rig.turns(1)
    rig.script.producers[0].fail(KafkaError.CLUSTER_AUTHORIZATION_FAILED)
    if not also_at_the_end:
        rig.turns(3)
    rig.sink.close()
    assert rig.script.producers[0].queue == []


def test_a_batch_refused_for_its_size_goes_again_in_smaller_ones_in_order(rig: Rig) -> None:
    """The broker takes 100,000 bytes; librdkafka fills batches up to batch.size."""

    def answer(record: Record) -> Any:
        alone = len(record[1]) > 100_000
        return KafkaError(KafkaError.MSG_SIZE_TOO_LARGE) if alone or rig.script.producers[-1].config["batch.size"] > 100_000 else None

    rig.script.answer = answer
    rig.send(b"1", b"2", b"x" * 300_000, b"3")
    rig.turns(1)
    rig.send(b"4")
    rig.script.answer = lambda record: None if record[0] == "iot-dead-letter" else answer(record)
    rig.turns(20)
    assert [producer.config["batch.size"] for producer in rig.script.producers[:3]] == [900_000, 225_000, 56_250]
    assert [value for value in rig.values() if len(value) == 1] == [b"1", b"2", b"3", b"4"]
    assert (rig.delivered, rig.dead_lettered, rig.spooled) == (4, 1, 0)


def test_a_batch_refused_for_one_record_is_sent_again_one_by_one(rig: Rig) -> None:
    seen: list[bytes] = []

    def answer(record: Record) -> Any:
        seen.append(record[1])
        return KafkaError(KafkaError.INVALID_RECORD) if record[1] == b"bad" or seen.count(record[1]) == 1 else None

    rig.script.answer = lambda record: None if record[0] == "iot-dead-letter" else answer(record)
    rig.send(b"good", b"bad", b"also good")
    rig.turns()
    assert (rig.delivered, rig.dead_lettered) == (2, 1)
    assert {record[1]: record[0] for record in rig.script.delivered} == {
        b"good": "iot-messages",
        b"also good": "iot-messages",
        b"bad": "iot-dead-letter",
    }
    assert rig.script.producers[1].config["batch.num.messages"] == 1


def too_large_for(limits: dict[str, int]) -> Callable[[Record], Any]:
    return lambda record: KafkaError(KafkaError.MSG_SIZE_TOO_LARGE) if len(record[1]) > limits[record[0]] else None


def test_a_message_too_large_for_the_topic_is_dead_lettered_whole(rig: Rig) -> None:
    rig.script.answer = too_large_for({"iot-messages": 1_000_000, "iot-dead-letter": 2_000_000})
    (message,) = rig.send(b"x" * 1_500_000)
    rig.turns()
    assert message.state is State.DEAD_LETTERED
    ((topic, value, key, headers),) = rig.script.delivered
    assert (topic, value, key) == ("iot-dead-letter", b"x" * 1_500_000, b"topic")
    assert dict(headers)["iot"] == b"1/1".ljust(28)
    assert b"too large" in dict(headers)["iot-error"].lower()


def test_a_message_too_large_for_everything_is_kept_in_parts_that_fit(make: Callable[..., Rig]) -> None:
    rig = make(ingest_max_record_bytes=1_000_000)
    rig.script.answer = too_large_for({"iot-messages": 100_000, "iot-dead-letter": 100_000})
    payload = bytes(range(256)) * 8000
    (message,) = rig.send(payload)
    rig.turns(20)
    assert message.state is State.DEAD_LETTERED
    parts = {dict(record[3])["iot-part"]: record[1] for record in rig.script.delivered}
    count = max(int(name.split(b"/")[1]) for name in parts)
    assert b"".join(parts[b"%d/%d" % (index + 1, count)] for index in range(count)) == payload


def test_a_message_for_a_dead_letter_topic_that_is_away_waits_in_the_spool_and_holds_nobody_up(rig: Rig) -> None:
    missing = True

    def answer(record: Record) -> Any:
        if record[0] == "iot-messages":
            return KafkaError(KafkaError.INVALID_RECORD) if record[1] == b"bad" else None
        return KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART) if missing else None

    rig.script.answer = answer
    rig.send(b"bad")
    rig.turns(10, seconds=1)
    assert (rig.spooled, rig.acknowledged) == (1, [1])
    rig.send(b"1", b"2")
    rig.turns()
    assert (rig.values(), rig.delivered, rig.dead_lettered) == ([b"1", b"2"], 2, 0)
    missing = False
    rig.turns(10, seconds=1)
    assert (rig.delivered, rig.dead_lettered, rig.spooled, rig.store.level.entries) == (2, 1, 0, 0)


def test_refused_messages_without_a_dead_letter_topic_do_not_fill_the_memory(make: Callable[..., Rig]) -> None:
    rig = make(ingest_in_flight_window=10)
    missing = True

    def answer(record: Record) -> Any:
        if record[0] == "iot-messages":
            return KafkaError(KafkaError.INVALID_RECORD)
        return KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART) if missing else None

    rig.script.answer = answer
    for _ in range(20):
        rig.send(*[b"bad"] * 10)
        rig.turns(10, seconds=1)
    assert rig.spooled == 200
    assert len(rig.script.records) < 1000  # ten are tried again and again, not all
    missing = False
    rig.turns(100, seconds=1)
    assert (rig.dead_lettered, rig.spooled) == (200, 0)
