"""The daemon's Kafka user lacks a right: nothing ends, nothing is lost, the right is named, and all flows once it is granted."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaException

from ingest_daemon.kafka import Channel
from ingest_daemon.settings import Settings
from iot_platform_tests.support.feeds.secured_flow import Passage
from iot_platform_tests.support.servers.ingest import Daemon, await_records, publish
from iot_platform_tests.support.servers.own_servers import Broker
from iot_platform_tests.support.servers.secured_kafka import SecuredKafka
from iot_platform_tests.support.waiting import eventually


@pytest.fixture
def passage(own_broker: Broker, secured_kafka: SecuredKafka, tmp_path: Path) -> Iterator[Passage]:
    made = Passage(tmp_path, own_broker, secured_kafka)
    secured_kafka.set_password(made.user, "secret")
    made.set(**secured_kafka.sasl(made.user, "secret"))
    yield made
    made.daemon.close()


def test_reports_that_are_due_with_a_fatal_error_arrive(secured_kafka: SecuredKafka) -> None:
    secured_kafka.create("fatal")
    secured_kafka.set_password("fatal", "secret")
    secured_kafka.grant("fatal", "DESCRIBE", topic="fatal")
    channel = Channel(Settings(**secured_kafka.sasl("fatal", "secret")))
    reported: list[tuple[int, str]] = []

    def report(number: int) -> Any:
        return lambda error, message: reported.append((number, f"{error.name()} {error.fatal()} {message.offset()} {message.timestamp()}"))

    for number in range(5):
        channel.produce("fatal", b"x", b"k", on_delivery=report(number), headers=[])
    eventually(lambda: dead(channel))
    channel.poll()
    assert channel.fatal.name() == "CLUSTER_AUTHORIZATION_FAILED"
    assert [number for number, _ in reported] == list(range(5))
    assert {text.split()[0] for _, text in reported} == {"_PURGE_QUEUE"}
    with pytest.raises(BufferError):
        channel.produce("fatal", b"x", b"k", on_delivery=report(9), headers=[])
    secured_kafka.grant("fatal", "WRITE", topic="fatal")
    assert channel.renew()
    arrived: list[Any] = []
    channel.produce("fatal", b"x", b"k", on_delivery=lambda error, _: arrived.append(error), headers=[])
    eventually(lambda: channel.poll() or arrived)
    assert arrived == [None]


def dead(channel: Channel) -> bool:
    """Whether the fatal error has joined what poll() gives out."""
    try:
        channel._producer.produce("fatal", b"probe")
    except KafkaException as error:
        name, fatal = error.args[0].name(), error.args[0].fatal()
    else:
        return False
    assert (name, fatal) == ("_FATAL", False)
    return True


def test_without_the_right_to_write_messages_are_spooled_until_it_is_granted(passage: Passage) -> None:
    daemon = passage.start()
    passage.await_problem(
        f"the Kafka user '{passage.user}' lacks the right to WRITE", "IOT_KAFKA_SASL_USERNAME", "kafka-acls", passage.topic
    )
    passage.publish(500)
    eventually(lambda: daemon.metric("spool_messages") == 500)
    assert daemon.metric("messages_in_flight") == 0  # acknowledged
    assert daemon.stop(seconds=15) == 0
    passage.start()
    passage.publish(100)
    eventually(lambda: daemon.metric("spool_messages") == 600)
    before = len(complaints(daemon))
    time.sleep(2)  # of a loop that is too tight the log would tell
    lines = complaints(daemon)
    assert len(lines) < before + 10, [line["event"] for line in lines]
    assert len(lines) < 40, [line["event"] for line in lines]
    assert any("kafka-acls" in str(line.get("reason")) for line in lines)
    passage.grant()
    passage.check()
    assert "secret" not in daemon.log.read_text()
    assert daemon.stop() == 0


def complaints(daemon: Daemon) -> list[dict[str, Any]]:
    """What it logged as warnings and worse."""
    return [event for event in daemon.events() if event["level"] in ("warning", "error", "critical")]


def test_a_right_taken_away_while_messages_flow(passage: Passage) -> None:
    passage.grant()
    daemon = passage.start()
    with passage.flowing():
        passage.await_progress()
        passage.kafka.revoke(passage.user, "WRITE", topic=passage.topic)
        passage.await_problem(f"the Kafka user '{passage.user}' lacks the right to WRITE", "kafka-acls", "IOT_KAFKA_SASL_USERNAME")
        eventually(lambda: daemon.metric("spool_messages") > 200)
        passage.grant()
        eventually(lambda: daemon.metric("spool_messages") == 0, 60)
        passage.await_progress()
    passage.check()


def test_without_the_right_to_the_dead_letter_topic_only_refused_messages_wait(passage: Passage) -> None:
    passage.kafka.grant(passage.user, "WRITE", "DESCRIBE", topic=passage.topic)
    passage.set(ingest_max_record_bytes=1024)
    daemon = passage.start()
    passage.publish(100)
    publish(passage.broker.url, [("f/large", b"x" * 300_000)])
    passage.publish(100)
    passage.await_problem(f"dead-letter topic {passage.dead}", "lacks the right to WRITE", "IOT_KAFKA_DEAD_LETTER_TOPIC")
    eventually(lambda: daemon.metric("messages_delivered_total") == 200)
    passage.grant()
    assert len(await_records(passage.kafka.bootstrap_servers, passage.dead, 1)) >= 1
    eventually(lambda: daemon.metric("messages_dead_lettered_total") == 1 and daemon.probe("readyz")[0] == 200)
