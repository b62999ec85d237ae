"""The daemon between a real Mosquitto and a real Kafka: everything arrives, whole, with a true header, also after kill -9."""

import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from iot_platform_tests.support.servers.ingest import Daemon, Record, await_records, create_topics, forget, publish, read_all
from iot_platform_tests.support.servers.stack import Servers
from iot_platform_tests.support.waiting import eventually


@pytest.fixture
def topics(request: pytest.FixtureRequest) -> tuple[str, str]:
    """A topic of the test's own and its dead-letter topic, not created yet."""
    name = request.node.name.replace("[", "-").replace("]", "")
    return name, f"{name}-dead"


@pytest.fixture
def daemon(servers: Servers, topics: tuple[str, str], tmp_path: Path) -> Iterator[Daemon]:
    """Not started yet; subscribes below the test's name."""
    made = Daemon(
        tmp_path,
        mqtt_url=servers.mqtt_url,
        mqtt_topic_filter=f"{topics[0]}/#",
        kafka_bootstrap_servers=servers.kafka_bootstrap_servers,
        kafka_topic=topics[0],
        kafka_dead_letter_topic=topics[1],
    )
    yield made
    made.close()
    forget(servers.mqtt_url, made.environment["IOT_INGEST_CLIENT_ID"])


def records_of(servers: Servers, topic: str, count: int) -> list[Record]:
    """All records, once there are as many."""
    return await_records(servers.kafka_bootstrap_servers, topic, count)


def test_every_message_arrives_whole(servers: Servers, topics: tuple[str, str], daemon: Daemon) -> None:
    create_topics(servers.kafka_bootstrap_servers, *topics)
    daemon.start()
    before = time.time_ns() // 1000
    messages = [
        (f"{topics[0]}/1968193631353446400/p/d", b'{"t": 25.3}'),
        (f"{topics[0]}/deep/er/than/any/pattern", b"{}"),
        (f"{topics[0]}/温度/ö", "{'ä': '雪'}".encode()),
        (f"{topics[0]}/bytes", bytes(range(256))),
        (f"{topics[0]}/large", b"z" * 700_000),
        (f"{topics[0]}/empty", b""),
        (f"{topics[0]}", b"the filter's own level"),
    ]
    publish(servers.mqtt_url, messages)
    publish(servers.mqtt_url, [(f"{topics[0]}/qos0", b"0")], qos=0)
    publish(servers.mqtt_url, [(f"{topics[0]}/qos2", b"2")], qos=2)
    messages += [(f"{topics[0]}/qos0", b"0"), (f"{topics[0]}/qos2", b"2")]
    records = records_of(servers, topics[0], len(messages))
    assert sorted((record.topic, record.value) for record in records) == sorted(messages)
    in_order = sorted(records, key=lambda record: record.sequence)
    assert [record.sequence for record in in_order] == list(range(1, len(messages) + 1))
    assert {record.connection for record in records} == {in_order[0].connection}
    assert {record.client_id for record in records} == {daemon.environment["IOT_INGEST_CLIENT_ID"]}
    assert all(before - 1_000_000 < record.received_at_us < time.time_ns() // 1000 for record in records)
    assert {(record.topic.rsplit("/", 1)[1], record.flags, bool(record.packet_id)) for record in records if "qos" in record.topic} == {
        ("qos0", 0b0000, False),
        ("qos2", 0b0100, True),
    }
    assert daemon.stop() == 0
    assert [event["event"] for event in daemon.events()][-1] == "stopped"


def test_messages_of_an_absence_are_kept_and_a_retained_one_comes_once(servers: Servers, topics: tuple[str, str], daemon: Daemon) -> None:
    create_topics(servers.kafka_bootstrap_servers, *topics)
    retained = f"{topics[0]}/state"
    publish(servers.mqtt_url, [(retained, b"snapshot")], retain=True)
    try:
        daemon.start()
        records_of(servers, topics[0], 1)
        assert daemon.stop() == 0
        publish(servers.mqtt_url, [(f"{topics[0]}/{number}", b"x") for number in range(100)])
        daemon.start()
        records = records_of(servers, topics[0], 101)
    finally:
        publish(servers.mqtt_url, [(retained, b"")], retain=True)
    assert [(record.topic, bool(record.flags & 2)) for record in records if record.flags & 2] == [(retained, True)]
    assert len({record.topic for record in records}) == 101
    first, second = sorted({record.connection for record in records})
    assert first < second
    assert not any(record.dup for record in records)


def test_a_changed_topic_filter_replaces_the_former_subscription(servers: Servers, topics: tuple[str, str], daemon: Daemon) -> None:
    create_topics(servers.kafka_bootstrap_servers, *topics)
    daemon.start()
    publish(servers.mqtt_url, [(f"{topics[0]}/old/1", b"x")])
    records_of(servers, topics[0], 1)
    assert daemon.stop() == 0
    publish(servers.mqtt_url, [(f"{topics[0]}/old/2", b"x")])  # the broker keeps it: it was subscribed to
    daemon.environment["IOT_MQTT_TOPIC_FILTER"] = f"{topics[0]}/new/#"
    daemon.start()
    eventually(lambda: any(event["event"] == "unsubscribed" for event in daemon.events()))
    publish(servers.mqtt_url, [(f"{topics[0]}/{name}/3", b"x") for name in ("old", "new", "old")])
    publish(servers.mqtt_url, [(f"{topics[0]}/new/4", b"x")])
    records = records_of(servers, topics[0], 4)
    assert sorted(record.topic.removeprefix(f"{topics[0]}/") for record in records) == ["new/3", "new/4", "old/1", "old/2"]


def test_kill_9_in_the_middle_loses_nothing_and_marks_what_comes_again(servers: Servers, topics: tuple[str, str], daemon: Daemon) -> None:
    create_topics(servers.kafka_bootstrap_servers, *topics)
    daemon.start()
    messages = [(f"{topics[0]}/t{number % 7}/p{number % 13}", b'{"n": %d}' % number) for number in range(20_000)]

    def pace(number: int) -> None:
        """Never so far ahead that a daemon could be done with all of it before it is killed."""
        if number % 500 == 0:
            eventually(lambda: daemon.metric("messages_received_total") >= number - 3000, 60)

    publisher = threading.Thread(target=publish, args=(servers.mqtt_url, messages), kwargs={"pace": pace})
    publisher.start()
    chance = random.Random(3)
    for _ in range(3):
        delivered = daemon.metric("messages_delivered_total")
        eventually(lambda seen=delivered: daemon.metric("messages_delivered_total") > seen + chance.randrange(1, 1500))
        daemon.kill()
        daemon.start(ready=False)
        eventually(lambda: daemon.probe("readyz")[0] == 200)
    publisher.join(120)
    assert not publisher.is_alive()
    records = records_of(servers, topics[0], len(messages))
    eventually(lambda: daemon.metric("messages_in_flight") == 0 and daemon.metric("messages_received_total"))
    assert daemon.stop() == 0
    records = read_all(servers.kafka_bootstrap_servers, topics[0])
    assert {(record.topic, record.value) for record in records} == set(messages)
    by_message: dict[tuple[str, bytes], list[Record]] = {}
    for record in sorted(records, key=lambda record: (record.connection, record.sequence)):
        by_message.setdefault((record.topic, record.value), []).append(record)
    for copies in by_message.values():
        assert all(copy.dup and copy.packet_id == copies[0].packet_id for copy in copies[1:])
        assert len({copy.connection for copy in copies}) == len(copies)
    connections = {record.connection for record in records}
    assert len(connections) == 4
    for connection in connections:
        # Sequences have no gap but at the end: what was in flight at the kill may or may not have reached Kafka.
        sequences = [record.sequence for record in records if record.connection == connection]
        assert len(sequences) == len(set(sequences))


def test_order_of_a_source_is_kept(servers: Servers, topics: tuple[str, str], daemon: Daemon) -> None:
    create_topics(servers.kafka_bootstrap_servers, *topics)
    daemon.start()
    publish(servers.mqtt_url, [(f"{topics[0]}/{number % 5}", b"%d" % number) for number in range(5000)])
    records = records_of(servers, topics[0], 5000)
    for source in range(5):
        values = [int(record.value) for record in records if record.topic == f"{topics[0]}/{source}"]
        assert values == list(range(source, 5000, 5))
    eventually(lambda: daemon.metric("messages_in_flight") == 0)
    received, delivered, dead = (daemon.metric(f"messages_{kind}_total") for kind in ("received", "delivered", "dead_lettered"))
    assert received == delivered + dead


def test_what_kafka_refuses_is_kept_whole_in_the_dead_letter_topic(servers: Servers, topics: tuple[str, str], daemon: Daemon) -> None:
    create_topics(servers.kafka_bootstrap_servers, *topics)
    daemon.start()
    huge = random.Random(1).randbytes(3_000_000)
    small = [(f"{topics[0]}/small", b"%d" % number) for number in range(20)]
    publish(servers.mqtt_url, [*small[:10], (f"{topics[0]}/huge", huge), *small[10:]])
    assert {record.value for record in records_of(servers, topics[0], 20)} == {value for _, value in small}
    eventually(lambda: daemon.metric("messages_dead_lettered_total") == 1)
    eventually(lambda: daemon.metric("messages_delivered_total") == 20)
    letters = read_all(servers.kafka_bootstrap_servers, topics[1])
    assert {letter.topic for letter in letters} == {f"{topics[0]}/huge"}
    assert len({letter.headers["iot"] for letter in letters}) == 1
    assert all(b"large" in letter.headers["iot-error"].lower() for letter in letters)
    parts = sorted((int(letter.headers["iot-part"].split(b"/")[0]), letter.value) for letter in letters)
    assert b"".join(value for _, value in parts) == huge
    assert daemon.stop() == 0
    publish(servers.mqtt_url, [(f"{topics[0]}/after", b"x")])
    daemon.start()
    records = records_of(servers, topics[0], 21)
    assert not any(record.dup for record in records)  # the huge one was acknowledged too


def test_a_missing_topic_is_named_and_nothing_is_acknowledged_until_it_exists(
    servers: Servers, topics: tuple[str, str], daemon: Daemon
) -> None:
    create_topics(servers.kafka_bootstrap_servers, topics[1])
    daemon.start(ready=False)
    eventually(lambda: "IOT_KAFKA_TOPIC" in daemon.probe("readyz")[1])
    assert daemon.probe("readyz")[0] == 503
    assert daemon.probe("healthz")[0] == 200
    eventually(lambda: daemon.metric("mqtt_connected") == 1)
    publish(servers.mqtt_url, [(f"{topics[0]}/a", b"1")])
    eventually(lambda: daemon.metric("messages_in_flight") == 1)
    create_topics(servers.kafka_bootstrap_servers, topics[0])
    assert [record.value for record in records_of(servers, topics[0], 1)] == [b"1"]
    eventually(lambda: daemon.probe("readyz")[0] == 200)


def test_a_second_daemon_with_the_same_client_id_is_told_so(
    servers: Servers, topics: tuple[str, str], daemon: Daemon, tmp_path: Path
) -> None:
    create_topics(servers.kafka_bootstrap_servers, *topics)
    daemon.start()
    other = Daemon(tmp_path)
    other.environment = {**daemon.environment, "IOT_INGEST_HTTP_PORT": str(other.port)}
    try:
        other.start(ready=False)
        assert other.process is not None
        assert other.process.wait(20) == 2  # the same state directory
        other.environment["IOT_INGEST_STATE_DIR"] = str(tmp_path / "elsewhere")
        other.start(ready=False)
        eventually(lambda: "IOT_INGEST_CLIENT_ID" in daemon.probe("readyz")[1] or "IOT_INGEST_CLIENT_ID" in other.probe("readyz")[1])
    finally:
        other.close()


def test_members_of_a_shared_group_divide_the_messages(servers: Servers, topics: tuple[str, str], daemon: Daemon, tmp_path: Path) -> None:
    create_topics(servers.kafka_bootstrap_servers, *topics)
    daemon.environment["IOT_INGEST_SHARED_GROUP"] = "fleet"
    other = Daemon(tmp_path / "other")
    (tmp_path / "other").mkdir()
    other.environment = {**daemon.environment, **other.environment}
    try:
        daemon.start()
        other.start()
        publish(servers.mqtt_url, [(f"{topics[0]}/{number}", b"x") for number in range(400)])
        records = records_of(servers, topics[0], 400)
        assert len({record.topic for record in records}) == len(records) == 400
        assert len({record.client_id for record in records}) == 2
        assert other.stop() == 0
    finally:
        other.close()
        forget(servers.mqtt_url, other.environment["IOT_INGEST_CLIENT_ID"])
