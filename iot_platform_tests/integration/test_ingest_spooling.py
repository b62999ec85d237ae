"""The spool on real servers: Kafka gone, daemon killed, disk full, and in the end everything is in Kafka, in order, once."""

import contextlib
import json
import random
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from iot_platform.drills.rig.small_disk import SmallDisk, obstacle, small_disk
from iot_platform_tests.support.servers.ingest import Daemon, Record, await_records, publish
from iot_platform_tests.support.servers.own_servers import Broker, OwnKafka
from iot_platform_tests.support.waiting import eventually


def numbered(first: int, last: int, size: int = 0) -> list[tuple[str, bytes]]:
    return [(f"f/{number % 7}", b"%d" % number + b" " * size) for number in range(first, last)]


def spool_file(daemon: Daemon) -> Path:
    (found,) = Path(daemon.environment["IOT_INGEST_STATE_DIR"]).glob("spool-*.sqlite")
    return found


def different_entries(daemon: Daemon) -> int:
    with contextlib.closing(sqlite3.connect(f"file:{spool_file(daemon)}?mode=ro", uri=True)) as connection:
        return int(connection.execute("SELECT count(DISTINCT value) FROM entry").fetchone()[0])


def await_delivered(daemon: Daemon, count: int) -> None:
    """Until Kafka has confirmed so many: those that are in Kafka unconfirmed would go into the spool as well."""
    eventually(lambda: daemon.metric("messages_delivered_total") == count)


def check(kafka: OwnKafka, daemon: Daemon, count: int) -> list[Record]:
    """Everything is in Kafka, in order per topic; a repeat is one that the drain recognises. Nothing is left in the spool."""
    eventually(lambda: settled(daemon) and accounting(daemon)["spooled"] == 0, 60)
    records = await_records(kafka.bootstrap_servers, daemon.environment["IOT_KAFKA_TOPIC"], count)
    first: dict[bytes, Record] = {}
    for record in records:
        same = first.setdefault(record.value, record)
        assert record is same or record.dup or record.headers == same.headers
    assert {int(value) for value in first} == set(range(count))
    for topic in {record.topic for record in records}:
        numbers = [int(value) for value, record in first.items() if record.topic == topic]
        assert numbers == sorted(numbers)
    books = accounting(daemon)
    assert books["received"] == books["delivered"] + books["given_up"]
    assert books["missing"] == 0
    return records


def settled(daemon: Daemon) -> bool:
    return daemon.probe("accounting")[0] == 200 and accounting(daemon)["in_flight"] == 0


def accounting(daemon: Daemon) -> dict[str, int]:
    """The counters of /accounting, which always add up."""
    body = json.loads(daemon.probe("accounting")[1])
    assert body["received"] == sum(body[name] for name in ("delivered", "dead_lettered", "spooled", "in_flight", "given_up", "missing"))
    return {name: value for name, value in body.items() if isinstance(value, int)}


def test_killed_again_and_again_while_kafka_is_away(own_broker: Broker, own_kafka: OwnKafka, own_daemon: Daemon) -> None:
    own_daemon.environment["IOT_INGEST_SPOOL_AFTER_SECONDS"] = "0.5"
    own_daemon.start()
    publish(own_broker.url, numbered(0, 200))
    await_delivered(own_daemon, 200)
    own_kafka.kill()
    chance = random.Random(4)
    sender = threading.Thread(
        target=publish, args=(own_broker.url, numbered(200, 4000)), kwargs={"pace": lambda number: time.sleep(0.05 * (number % 40 == 0))}
    )
    sender.start()
    for _ in range(4):
        before = own_daemon.metric("spool_messages")
        eventually(lambda least=before + 200: own_daemon.metric("spool_messages") > least or not sender.is_alive())
        time.sleep(chance.uniform(0, 0.05))  # anywhere within a round of the disk
        own_daemon.kill()
        own_daemon.start(ready=False)
        eventually(lambda: own_daemon.metric("mqtt_connected"))
    sender.join()
    eventually(lambda: settled(own_daemon) and different_entries(own_daemon) == 3800, 60)
    own_daemon.kill()
    # What was acknowledged is nowhere but in the spool: the broker forgets everything.
    own_broker.stop()
    shutil.rmtree(own_broker.config.parent / "mosquitto")
    (own_broker.config.parent / "mosquitto").mkdir()
    own_broker.start()
    own_daemon.start(ready=False)
    own_kafka.revive()
    check(own_kafka, own_daemon, 4000)


def test_killed_while_the_spool_empties(own_broker: Broker, own_kafka: OwnKafka, own_daemon: Daemon) -> None:
    own_daemon.environment["IOT_INGEST_IN_FLIGHT_WINDOW"] = "2000"
    own_daemon.start()
    own_kafka.pause()
    publish(own_broker.url, numbered(0, 12_000))
    eventually(lambda: own_daemon.metric("spool_messages") == 12_000, 60)
    own_kafka.resume()
    for left in (11_000, 6_000, 2_000):
        eventually(lambda left=left: 0 < own_daemon.metric("spool_messages") < left or own_daemon.metric("messages_delivered_total"), 60)
        own_daemon.kill()
        own_daemon.start(ready=False)
    records = check(own_kafka, own_daemon, 12_000)
    assert len(records) < 12_000 + 3 * 21_000  # at most the window again


def test_a_stop_during_the_outage_keeps_the_spool(own_broker: Broker, own_kafka: OwnKafka, own_daemon: Daemon) -> None:
    own_daemon.start()
    own_kafka.pause()
    publish(own_broker.url, numbered(0, 500))
    eventually(lambda: own_daemon.metric("spool_messages") == 500)
    assert spool_file(own_daemon).stat().st_mode & 0o777 == 0o600
    assert own_daemon.stop() == 0
    own_daemon.start(ready=False)
    publish(own_broker.url, numbered(500, 600))
    eventually(lambda: own_daemon.metric("spool_messages") == 600)
    own_kafka.resume()
    check(own_kafka, own_daemon, 600)
    eventually(lambda: own_daemon.probe("readyz")[0] == 200)


def test_the_limit_holds_acknowledgements_back_until_kafka_returns(own_broker: Broker, own_kafka: OwnKafka, own_daemon: Daemon) -> None:
    own_daemon.environment["IOT_INGEST_SPOOL_BYTES"] = str(16 * 1024**2)
    own_daemon.start()
    own_kafka.pause()
    publish(own_broker.url, numbered(0, 1500, 20_000))
    eventually(lambda: own_daemon.metric("spool_full") == 1 and own_daemon.metric("messages_in_flight") == 100)
    spooled = own_daemon.metric("spool_messages")
    assert 400 < spooled < 1000
    assert own_daemon.metric("spool_bytes") < 1.1 * 16 * 1024**2
    assert "IOT_INGEST_SPOOL_BYTES" in own_daemon.probe("readyz")[1]
    assert accounting(own_daemon)["received"] == spooled + 100
    own_kafka.resume()
    check(own_kafka, own_daemon, 1500)
    assert own_daemon.metric("spool_full") == 0


@pytest.fixture
def disk(own_daemon: Daemon) -> Iterator[SmallDisk]:
    if reason := obstacle():
        pytest.skip(reason)
    with small_disk(Path(own_daemon.environment["IOT_INGEST_STATE_DIR"]), 48 * 1024**2) as made:
        yield made
        own_daemon.close()


def test_a_full_disk_holds_acknowledgements_back_until_there_is_room(
    own_broker: Broker, own_kafka: OwnKafka, own_daemon: Daemon, disk: SmallDisk
) -> None:
    own_daemon.start()
    disk.fill()
    publish(own_broker.url, numbered(0, 300))  # Kafka is well: the disk is nobody's business
    await_delivered(own_daemon, 300)
    assert own_daemon.probe("readyz")[0] == 200
    own_kafka.pause()
    publish(own_broker.url, numbered(300, 1000))
    eventually(lambda: own_daemon.metric("spool_full") == 1 and own_daemon.metric("messages_in_flight") == 100)
    assert "IOT_INGEST_STATE_DIR" in own_daemon.probe("readyz")[1]
    assert own_daemon.metric("spool_messages") == 0
    disk.make_room()
    eventually(lambda: own_daemon.metric("spool_messages") == 700)
    assert own_daemon.metric("spool_full") == 0
    disk.fill()
    publish(own_broker.url, numbered(1000, 1500))
    eventually(lambda: own_daemon.metric("messages_in_flight") == 100)
    own_kafka.resume()  # replay needs no room
    await_records(own_kafka.bootstrap_servers, own_daemon.environment["IOT_KAFKA_TOPIC"], 1500)
    own_broker.stop()  # a new connection needs some, and waits for it
    own_broker.start()
    time.sleep(2)
    assert own_daemon.process is not None
    assert own_daemon.process.poll() is None
    disk.make_room()
    eventually(lambda: own_daemon.probe("readyz")[0] == 200, 60)
    check(own_kafka, own_daemon, 1500)
    assert own_daemon.stop() == 0


def test_an_entry_that_vanished_is_missing(own_broker: Broker, own_kafka: OwnKafka, own_daemon: Daemon) -> None:
    own_daemon.start()
    own_kafka.pause()
    publish(own_broker.url, numbered(0, 50))
    eventually(lambda: own_daemon.metric("spool_messages") == 50)
    assert own_daemon.stop() == 0
    with contextlib.closing(sqlite3.connect(spool_file(own_daemon))) as connection:
        connection.execute("DELETE FROM entry WHERE id = (SELECT id FROM entry ORDER BY id LIMIT 1 OFFSET 20)")
        connection.commit()
    own_kafka.resume()
    own_daemon.start()
    eventually(lambda: own_daemon.metric("spool_messages") == 0)
    assert own_daemon.metric("messages_missing") == 1
    assert accounting(own_daemon)["missing"] == 1


def test_a_damaged_file_is_refused_and_left_as_it_is(own_daemon: Daemon) -> None:
    own_daemon.start()
    assert own_daemon.stop() == 0
    file = spool_file(own_daemon)
    damaged = file.read_bytes()[:64] + b"\xff" * 5000
    file.write_bytes(damaged)
    own_daemon.start(ready=False)
    assert own_daemon.process is not None
    assert own_daemon.process.wait(20) == 2
    assert "IOT_INGEST_STATE_DIR" in own_daemon.log.read_text()
    assert file.read_bytes() == damaged
