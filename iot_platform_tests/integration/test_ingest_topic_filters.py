"""Several topic filters, changed while messages flow: on the same connection, without loss, also when the daemon dies in between."""

import json
import signal
from pathlib import Path

import pytest

from iot_platform_tests.support.servers.ingest import Daemon, await_records, publish, read_all
from iot_platform_tests.support.servers.own_servers import Broker, OwnKafka
from iot_platform_tests.support.waiting import eventually


@pytest.fixture
def filters(own_daemon: Daemon, tmp_path: Path) -> Path:
    """The file that the daemon follows; it begins with two of them."""
    file = tmp_path / "filters"
    file.write_text("f/kept/#\nf/old/#\n")
    own_daemon.environment["IOT_MQTT_TOPIC_FILTER_FILE"] = str(file)
    return file


def change(daemon: Daemon, file: Path, text: str) -> None:
    """Have the daemon follow the file's new content now."""
    file.write_text(text)
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGHUP)


def subscribed(daemon: Daemon, *topic_filters: str) -> bool:
    """Whether these are all that the broker holds, as the state directory knows."""
    (file,) = Path(daemon.environment["IOT_INGEST_STATE_DIR"]).glob("subscription-*[0-9]")
    return set(json.loads(file.read_text())) == set(topic_filters)


def values(kafka: OwnKafka, daemon: Daemon, count: int) -> list[bytes]:
    return [record.value for record in await_records(kafka.bootstrap_servers, daemon.environment["IOT_KAFKA_TOPIC"], count)]


def test_changed_while_messages_flow(own_broker: Broker, own_kafka: OwnKafka, own_daemon: Daemon, filters: Path) -> None:
    own_daemon.start()
    wanted: list[bytes] = []

    def flow(*levels: str) -> None:
        messages = [(f"f/{level}/1", b"%s %d" % (level.encode(), len(wanted) + number)) for number, level in enumerate(levels * 200)]
        wanted.extend(value for _, value in messages)
        publish(own_broker.url, messages)

    flow("kept", "old")
    change(own_daemon, filters, "f/kept/#\nf/new/+\n")
    publish(own_broker.url, [("f/kept/1", b"during %d" % number) for number in range(500)])
    wanted += [b"during %d" % number for number in range(500)]
    eventually(lambda: subscribed(own_daemon, "f/kept/#", "f/new/+"))
    publish(own_broker.url, [("f/old/1", b"nobody's any more")])
    flow("kept", "new")
    change(own_daemon, filters, "f/#/x\n")  # wrong
    eventually(lambda: "last level" in own_daemon.probe("readyz")[1])
    assert own_daemon.probe("readyz")[0] == 200
    flow("kept", "new")
    assert sorted(values(own_kafka, own_daemon, len(wanted))) == sorted(wanted)
    assert own_daemon.metric("mqtt_connections_total") == 1
    assert own_daemon.metric("messages_redelivered_total") == 0


def test_a_death_after_the_change_and_one_in_the_middle(own_broker: Broker, own_kafka: OwnKafka, own_daemon: Daemon, filters: Path) -> None:
    own_daemon.start()
    filters.write_text("f/kept/#\nf/new/#\n")
    eventually(lambda: any(event["event"] == "mqtt_access_changed" for event in own_daemon.events()))
    own_daemon.kill()  # anywhere between SUBSCRIBE and UNSUBACK
    filters.write_text("f/kept/#\nf/newest/#\n")
    publish(own_broker.url, [("f/kept/1", b"kept")])
    own_daemon.start()
    eventually(
        lambda: any("f/old/#" in event.get("topic_filters", ()) for event in own_daemon.events() if event["event"] == "unsubscribed")
    )
    publish(own_broker.url, [("f/old/1", b"x"), ("f/new/1", b"x"), ("f/newest/1", b"newest"), ("f/kept/1", b"kept too")])
    assert sorted(values(own_kafka, own_daemon, 3)) == [b"kept", b"kept too", b"newest"]
    assert own_daemon.stop() == 0
    own_daemon.start()
    eventually(lambda: own_daemon.metric("mqtt_connected"))
    assert len(read_all(own_kafka.bootstrap_servers, own_daemon.environment["IOT_KAFKA_TOPIC"])) == 3


def test_a_shared_group_of_several_filters(own_broker: Broker, own_kafka: OwnKafka, own_daemon: Daemon, filters: Path) -> None:
    own_daemon.environment["IOT_INGEST_SHARED_GROUP"] = "fleet"
    own_daemon.start()
    publish(own_broker.url, [(f"f/{level}/1", level.encode()) for level in ("kept", "old")])
    change(own_daemon, filters, "f/kept/#\n")
    eventually(lambda: subscribed(own_daemon, "$share/fleet/f/kept/#"))
    publish(own_broker.url, [(f"f/{level}/1", level.encode()) for level in ("old", "kept")])
    assert sorted(values(own_kafka, own_daemon, 3)) == [b"kept", b"kept", b"old"]


def test_overlapping_filters_are_told(own_broker: Broker, own_kafka: OwnKafka, own_daemon: Daemon, filters: Path) -> None:
    filters.write_text("f/#\nf/+/1\n")
    own_daemon.start()
    publish(own_broker.url, [("f/a/1", b"both"), ("f/a/2", b"one")])
    found = values(own_kafka, own_daemon, 2)
    assert set(found) == {b"both", b"one"}
    assert any(event["event"] == "topic_filters_overlap" for event in own_daemon.events())
    assert len(found) == own_daemon.metric("messages_received_total")  # as many as the broker sends: some send one for each filter
