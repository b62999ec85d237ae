"""The daemon by MQTT 3.1.1: the same guarantees, with less that the broker promises."""

import random
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from iot_platform.local.ports import free_ports
from iot_platform_tests.support.servers.ingest import Daemon, Record, await_records, publish, read_all
from iot_platform_tests.support.servers.mqtt_packets import PUBACK, PUBCOMP, PUBREC, SUBSCRIBE, publish_packet
from iot_platform_tests.support.servers.mqtt_script import V311, Link, Script, only, refuse_version, scripted
from iot_platform_tests.support.servers.own_servers import Broker, OwnKafka
from iot_platform_tests.support.waiting import eventually


def records_of(kafka: OwnKafka, daemon: Daemon, count: int) -> list[Record]:
    """All records, once there are as many."""
    return await_records(kafka.bootstrap_servers, daemon.environment["IOT_KAFKA_TOPIC"], count)


def peak_bytes(daemon: Daemon) -> int:
    """The most memory it has had."""
    assert daemon.process is not None
    lines = Path(f"/proc/{daemon.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


@pytest.fixture
def all_at_once(tmp_path: Path) -> Iterator[Broker]:
    """A Mosquitto that sends all it has without waiting for acknowledgements: 3.1.1 has no receive maximum to hold it back."""
    (tmp_path / "all").mkdir()
    port = free_ports(1)[0]
    made = Broker(tmp_path / "all", port, "max_inflight_messages 0", f"listener {port} 127.0.0.1", "allow_anonymous true")
    lines = made.config.read_text().replace("max_inflight_messages 2000\n", "")
    made.config.write_text(lines)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def daemon(own_daemon: Daemon) -> Daemon:
    """By 3.1.1, not started yet."""
    own_daemon.environment["IOT_MQTT_PROTOCOL"] = "3.1.1"
    return own_daemon


def test_a_broker_that_sends_everything_at_once_fills_no_memory(all_at_once: Broker, own_kafka: OwnKafka, daemon: Daemon) -> None:
    """20,000 messages, 200 MB, for a window of 100: reading pauses while Kafka hangs, and the connection stays."""
    daemon.environment |= {"IOT_MQTT_URL": all_at_once.url, "IOT_INGEST_SPOOL_AFTER_SECONDS": "3600"}
    daemon.start()
    before = peak_bytes(daemon)
    own_kafka.pause()
    messages = [(f"f/{number % 5}", b"%d " % number + b"x" * 10_000) for number in range(20_000)]
    publisher = threading.Thread(target=publish, args=(all_at_once.url, messages))
    publisher.start()
    publisher.join(120)
    assert not publisher.is_alive()
    eventually(lambda: daemon.metric("messages_in_flight") == 100)
    own_kafka.resume()
    records = records_of(own_kafka, daemon, len(messages))
    assert peak_bytes(daemon) - before < 40e6
    assert Counter((record.topic, record.value) for record in records) == Counter(messages)
    for source in range(5):
        numbers = [int(record.value.split()[0]) for record in records if record.topic == f"f/{source}"]
        assert numbers == sorted(numbers)
    assert daemon.metric("mqtt_connections_total") == 1
    assert daemon.stop() == 0


def test_kills_lose_nothing_and_what_comes_again_is_flagged(own_broker: Broker, own_kafka: OwnKafka, daemon: Daemon) -> None:
    daemon.start()
    messages = [(f"f/t{number % 7}", b"%d" % number) for number in range(9000)]
    chance = random.Random(5)
    for start in range(0, len(messages), 3000):
        received = daemon.metric("messages_received_total")
        publisher = threading.Thread(target=publish, args=(own_broker.url, messages[start : start + 3000]))
        publisher.start()
        eventually(lambda seen=received: daemon.metric("messages_received_total") > seen + chance.randrange(1, 1000))
        daemon.kill()
        publisher.join(60)
        daemon.start()
    records_of(own_kafka, daemon, len(messages))
    eventually(lambda: daemon.metric("messages_in_flight") == 0)
    assert daemon.stop() == 0
    records = read_all(own_kafka.bootstrap_servers, daemon.environment["IOT_KAFKA_TOPIC"])
    assert {(record.topic, record.value) for record in records} == set(messages)
    copies: dict[bytes, list[Record]] = {}
    for record in sorted(records, key=lambda record: (record.connection, record.sequence)):
        copies.setdefault(record.value, []).append(record)
    for first, *others in copies.values():
        assert all(other.dup and other.packet_id == first.packet_id for other in others)


def test_a_restarted_broker_keeps_the_session_and_retained_messages_are_flagged(
    own_broker: Broker, own_kafka: OwnKafka, daemon: Daemon
) -> None:
    """They come with each subscription, as 3.1.1 has it, and are no news."""
    publish(own_broker.url, [("f/state", b"snapshot")], retain=True)
    daemon.start()
    records_of(own_kafka, daemon, 1)
    own_broker.stop()
    eventually(lambda: daemon.probe("readyz")[0] == 503)
    own_broker.start()
    eventually(lambda: daemon.probe("readyz")[0] == 200)
    publish(own_broker.url, [(f"f/{number}", b"x") for number in range(50)])
    records = records_of(own_kafka, daemon, 52)
    assert daemon.metric("mqtt_sessions_lost_total") == 0
    assert Counter((record.value, bool(record.flags & 2)) for record in records) == {(b"snapshot", True): 2, (b"x", False): 50}


def test_a_changed_topic_filter_replaces_the_former_one(own_broker: Broker, own_kafka: OwnKafka, daemon: Daemon) -> None:
    daemon.environment["IOT_MQTT_TOPIC_FILTER"] = "f/old/#"
    daemon.start()
    assert daemon.stop() == 0
    publish(own_broker.url, [("f/old/1", b"x")])  # the broker keeps it: it was subscribed to
    daemon.environment["IOT_MQTT_TOPIC_FILTER"] = "f/new/#"
    daemon.start()
    eventually(lambda: any(event["event"] == "unsubscribed" for event in daemon.events()))
    publish(own_broker.url, [("f/old/2", b"x"), ("f/new/3", b"x")])
    assert sorted(record.topic for record in records_of(own_kafka, daemon, 2)) == ["f/new/3", "f/old/1"]


def test_auto_stays_with_5_where_it_is_spoken(own_broker: Broker, own_daemon: Daemon) -> None:
    own_daemon.start()
    own_broker.stop()
    eventually(lambda: own_daemon.probe("readyz")[0] == 503)
    own_broker.start()
    eventually(lambda: own_daemon.probe("readyz")[0] == 200)
    assert {event["protocol"] for event in own_daemon.events() if event["event"] == "connected"} == {"5"}


def test_a_shared_group_needs_5(own_daemon: Daemon) -> None:
    own_daemon.environment |= {"IOT_MQTT_PROTOCOL": "3.1.1", "IOT_INGEST_SHARED_GROUP": "g"}
    own_daemon.start(ready=False)
    assert own_daemon.process is not None
    assert own_daemon.process.wait(20) == 2
    assert "IOT_INGEST_SHARED_GROUP" in own_daemon.log.read_text()
    own_daemon.environment["IOT_MQTT_PROTOCOL"] = "auto"
    with scripted(only(V311, refuse_version)) as broker:
        own_daemon.environment["IOT_MQTT_URL"] = broker.url
        own_daemon.start(ready=False)
        assert own_daemon.process.wait(20) == 3
    assert own_daemon.log.read_text().count("IOT_INGEST_SHARED_GROUP: the broker speaks MQTT 3.1.1 only") >= 1


# -- what brokers do that Mosquitto does not --------------------------------------------------------------------


def hold(daemon: Daemon, kafka: OwnKafka) -> None:
    """Start it against a broker that follows a script, with a Kafka that confirms nothing."""
    kafka.pause()
    daemon.environment["IOT_INGEST_SPOOL_AFTER_SECONDS"] = "3600"


def test_what_comes_again_while_it_is_in_flight_is_neither_stored_nor_counted_twice(own_kafka: OwnKafka, daemon: Daemon) -> None:
    """NATS sends what is unacknowledged again every 30 s, Moquette every 5 s, on the same connection."""
    acknowledged: list[int] = []
    go_on = threading.Event()

    def script(link: Link) -> None:
        link.begin()
        for first in (0x32, 0x3A, 0x3A):
            link.send(b"".join(publish_packet("f/x", number, b"%d" % number, first=first) for number in range(1, 201)))
        link.publish("f/x", 7, b"another", first=0x3A)  # not the same: kept
        go_on.set()
        acknowledged.extend(link.packet_id(PUBACK) for _ in range(201))
        link.publish("f/x", 200, b"200", first=0x3A)  # its PUBACK was on the way
        acknowledged.append(link.packet_id(PUBACK))
        link.rest()

    with scripted(script) as broker:
        daemon.environment |= {"IOT_MQTT_URL": broker.url, "IOT_INGEST_IN_FLIGHT_WINDOW": "1000"}
        hold(daemon, own_kafka)
        daemon.start(ready=False)
        assert go_on.wait(30)
        eventually(lambda: daemon.metric("messages_resent_total") == 400)
        eventually(lambda: daemon.metric("messages_in_flight") == 201)
        own_kafka.resume()
        records = records_of(own_kafka, daemon, 202)
        eventually(lambda: len(acknowledged) == 202)
        assert daemon.stop() == 0
    assert acknowledged == [*range(1, 201), 7, 200]
    assert [(record.value, record.packet_id, record.dup) for record in sorted(records, key=lambda record: record.sequence)] == [
        *((b"%d" % number, number, False) for number in range(1, 201)),
        (b"another", 7, True),
        (b"200", 200, True),
    ]
    assert daemon_received(daemon) == 202


def daemon_received(daemon: Daemon) -> int:
    """Messages that its books count as received, asked of a process that only looks."""
    daemon.start(ready=False)
    return int(eventually(lambda: daemon.metric("messages_received_total")))


def after_kill(daemon: Daemon, kafka: OwnKafka, *scripts: Script) -> list[Record]:
    """Run the daemon through the connections: it is killed at the end of each script but the last, and what is in Kafka then."""
    reached = [threading.Event() for _ in scripts]

    def told(script: Script, event: threading.Event) -> Script:
        def run(link: Link) -> None:
            script(link)
            event.set()
            link.rest()

        return run

    with scripted(*(told(script, event) for script, event in zip(scripts, reached, strict=True))) as broker:
        daemon.environment["IOT_MQTT_URL"] = broker.url
        for number, event in enumerate(reached):
            daemon.start(ready=False)
            assert event.wait(60), number
            if number + 1 < len(reached):
                daemon.kill()
        assert daemon.stop() == 0
    return read_all(kafka.bootstrap_servers, daemon.environment["IOT_KAFKA_TOPIC"])


def qos_2(link: Link, *, dup: bool = False) -> None:
    link.publish("f/x", 5, b"exactly", first=0x3C if dup else 0x34)


def test_qos_2_killed_before_pubrec_comes_again(own_kafka: OwnKafka, daemon: Daemon) -> None:
    def first(link: Link) -> None:
        link.begin()
        qos_2(link)
        eventually(lambda: daemon.metric("messages_in_flight") == 1)

    def second(link: Link) -> None:
        link.begin(present=True)
        qos_2(link, dup=True)
        own_kafka.resume()
        assert link.packet_id(PUBREC) == 5
        link.pubrel(5)
        assert link.packet_id(PUBCOMP) == 5

    hold(daemon, own_kafka)
    records = after_kill(daemon, own_kafka, first, second)
    assert [(record.value, record.flags) for record in records] == [(b"exactly", 0b1001)]


def test_qos_2_killed_between_pubrec_and_pubrel_is_in_kafka_and_is_answered_to_its_end(own_kafka: OwnKafka, daemon: Daemon) -> None:
    def first(link: Link) -> None:
        link.begin()
        qos_2(link)
        assert link.packet_id(PUBREC) == 5

    def second(link: Link) -> None:
        link.connack(present=True)
        link.pubrel(5)
        packets = dict(link.packet() for _ in range(2))
        assert packets[PUBCOMP] == b"\0\x05"
        link.suback(int.from_bytes(packets[SUBSCRIBE][:2], "big"))
        link.publish("f/x", 5, b"the number is free again")
        assert link.packet_id(PUBACK) == 5

    records = after_kill(daemon, own_kafka, first, second)
    assert [(record.value, record.flags) for record in records] == [(b"exactly", 0b1000), (b"the number is free again", 0b0100)]


def test_qos_2_whose_pubrec_is_lost_is_flagged_when_it_comes_again(own_kafka: OwnKafka, daemon: Daemon) -> None:
    def first(link: Link) -> None:
        link.begin()
        qos_2(link)
        assert link.packet_id(PUBREC) == 5  # and the broker dies, say, before it has noted it

    def second(link: Link) -> None:
        link.begin(present=True)
        qos_2(link, dup=True)
        assert link.packet_id(PUBREC) == 5
        link.pubrel(5)
        assert link.packet_id(PUBCOMP) == 5

    records = after_kill(daemon, own_kafka, first, second)
    assert [(record.value, record.flags) for record in records] == [(b"exactly", 0b1000), (b"exactly", 0b1001)]


def test_a_window_of_qos_2_never_stands_still(own_kafka: OwnKafka, daemon: Daemon) -> None:
    """Ten in flight, as brokers allow: the next comes only after PUBCOMP."""

    def script(link: Link) -> None:
        link.begin()
        for start in range(0, 200, 10):
            for number in range(start, start + 10):
                link.publish("f/x", number % 20 + 1, b"%d" % number, first=0x34)
            completed = 0
            while completed < 10:
                kind, packet_id = link.packet(PUBREC, PUBCOMP)
                if kind == PUBREC:
                    link.pubrel(int.from_bytes(packet_id))
                completed += kind == PUBCOMP

    records = after_kill(daemon, own_kafka, script)
    assert [int(record.value) for record in sorted(records, key=lambda record: record.sequence)] == list(range(200))
