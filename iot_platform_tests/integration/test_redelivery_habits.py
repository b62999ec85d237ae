"""Redeliveries of brokers with every habit, through the real daemon, Kafka and drain: each second copy is marked, no new message is."""

import itertools
import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from iot_platform.settings import Settings
from iot_platform_tests.support.children.drain import CLAIM, COMMAND
from iot_platform_tests.support.children.killer import Killer
from iot_platform_tests.support.feeds.drain import TOPIC, check_books, drain, query
from iot_platform_tests.support.servers.habit_broker import HABITS, Habit, HabitBroker
from iot_platform_tests.support.servers.ingest import Daemon, publish, records_held
from iot_platform_tests.support.servers.own_servers import Broker
from iot_platform_tests.support.waiting import eventually


class Field:
    """A scripted broker, the daemon and the drain, and what devices published."""

    def __init__(self, habit: Habit, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self.broker = HabitBroker(habit)
        self.published: Counter[tuple[str, bytes]] = Counter()
        self.numbers = itertools.count()
        self.daemon = Daemon.on(settings, folder, mqtt_url=self.broker.url)

    def publish(self, topic: str, payload: bytes) -> None:
        self.published[topic, payload] += 1
        self.broker.publish(topic, payload)

    def readings(self, count: int) -> None:
        """Readings that differ, of seven devices."""
        for number in itertools.islice(self.numbers, count):
            self.publish(f"{TOPIC}/device-{number % 7}", b'{"n":%d}' % number)

    def heartbeats(self, count: int) -> None:
        for _ in range(count):
            self.publish(f"{TOPIC}/heart", b"{}")

    def in_kafka(self) -> int:
        return records_held(self.settings.kafka_bootstrap_servers, self.settings.kafka_topic)

    def all_acknowledged(self) -> None:
        eventually(lambda: self.broker.empty, what="the daemon does not acknowledge everything")

    def without_pubacks(self, count: int) -> None:
        """Readings that reach Kafka, and whose acknowledgements are lost."""
        self.all_acknowledged()
        self.broker.swallow = True
        before = self.in_kafka()
        self.readings(count)
        arriving = min(count, self.broker.habit.window)
        eventually(lambda: self.in_kafka() >= before + arriving, what="the readings are not in Kafka")

    def back(self) -> None:
        self.broker.swallow = False
        eventually(lambda: self.broker.connected)
        if self.broker.habit.order == "late":
            self.readings(5)
            eventually(lambda: self.broker.only_owed, what="the daemon does not acknowledge what is new")
            self.broker.resend()

    def books(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.daemon.probe("accounting")[1])
        places = ("delivered", "spooled", "dead_lettered", "in_flight", "given_up", "missing")
        assert found["received"] == sum(found[place] for place in places), found
        return found


@pytest.fixture
def field(request: pytest.FixtureRequest, settings: Settings, tmp_path: Path) -> Iterator[Field]:
    made = Field(request.param, settings, tmp_path)
    yield made
    made.daemon.close()
    made.broker.close()


def each_habit(*names: str) -> pytest.MarkDecorator:
    chosen = names or tuple(HABITS)
    return pytest.mark.parametrize("field", [HABITS[name] for name in chosen], ids=chosen, indirect=True)


def unmarked(settings: Settings, topic: str = "") -> Counter[tuple[str, bytes]]:
    """Topic and payload of every row that is no second copy."""
    rows = query(settings, "SELECT topic, payload FROM message_named WHERE duplicate_of IS NULL")
    return Counter((name, bytes(payload)) for name, payload in rows if topic in name)


@each_habit()
def test_second_copies_and_only_they_are_marked(field: Field, killer: Killer) -> None:
    field.daemon.start()
    field.readings(200)
    field.without_pubacks(90)
    field.daemon.kill()
    field.broker.cut()
    field.readings(20)
    field.daemon.start(ready=False)
    field.back()
    field.all_acknowledged()
    field.without_pubacks(90)  # and once more, on a connection that breaks under a daemon that lives
    field.broker.cut()
    field.back()
    field.all_acknowledged()
    burst = min(1000, 30 * field.broker.habit.window)
    for _ in range(2):  # killed while everything moves
        before = field.in_kafka()
        field.readings(burst)
        eventually(lambda before=before: field.in_kafka() > before + burst // 5)  # type: ignore[misc]
        field.daemon.kill()
        field.broker.cut()
        field.daemon.start(ready=False)
        field.back()
        field.all_acknowledged()
    eventually(lambda: field.books()["in_flight"] == 0)
    found = field.books()
    assert (found["awaiting_redelivery"], found["given_up"], found["missing"]) == (0, 0, 0)
    assert field.daemon.metric("messages_redelivered_total") <= field.broker.redelivered
    assert field.daemon.stop() == 0
    killer.kill(COMMAND, field.settings.model_copy(update={"drain_batch_records": 50}), "before_commit", CLAIM, 3)
    drain(field.settings)
    assert unmarked(field.settings) == field.published
    assert query(field.settings, "SELECT count(duplicate_of) >= %s FROM message", 2 * min(90, field.broker.habit.window)) == [(True,)]
    check_books(field.settings)


@each_habit()
def test_equal_messages_are_never_fewer_than_were_published(field: Field) -> None:
    """Heartbeats, of which some were acknowledged, some not, and some wait at the broker, when the daemon is killed: a row for each."""
    field.daemon.start()
    field.readings(20)
    field.heartbeats(30)
    field.all_acknowledged()
    for _ in range(2):
        field.broker.swallow = True
        field.heartbeats(7)
        field.readings(1)
        eventually(lambda: field.in_kafka() >= sum(field.published.values()) - field.broker.waiting, what="not in Kafka")
        field.daemon.kill()
        field.broker.cut()
        field.heartbeats(5)
        field.daemon.start(ready=False)
        field.back()
        field.heartbeats(5)
        field.all_acknowledged()
    assert field.daemon.stop() == 0
    drain(field.settings)
    kept = unmarked(field.settings)
    heartbeat = f"{TOPIC}/heart", b"{}"
    assert kept[heartbeat] >= field.published[heartbeat]
    if field.broker.habit.dup and not field.broker.habit.new_ids:
        assert kept == field.published
    check_books(field.settings)


@each_habit("mosquitto", "nats")
def test_what_comes_again_on_the_same_connection_is_marked(field: Field) -> None:
    field.daemon.start()
    field.readings(10)
    field.without_pubacks(30)
    eventually(lambda: field.daemon.metric("messages_in_flight") == 0)  # what is in flight still is left out
    field.broker.resend()
    eventually(lambda: field.daemon.metric("messages_redelivered_total") == 30 and field.daemon.metric("messages_in_flight") == 0)
    field.broker.swallow = False
    field.broker.resend()
    field.all_acknowledged()
    assert field.daemon.metric("messages_redelivered_total") == field.broker.redelivered == 60
    assert field.daemon.stop() == 0
    drain(field.settings)
    assert unmarked(field.settings) == field.published
    check_books(field.settings)


@pytest.mark.parametrize("kill", [False, True], ids=["connection_lost", "daemon_killed"])
def test_a_heartbeat_after_a_reconnect_to_mosquitto_is_new(own_broker: Broker, settings: Settings, tmp_path: Path, *, kill: bool) -> None:
    """The first reconnect in this daemon's life, a moment after acknowledgements that nothing has confirmed yet."""
    daemon = Daemon.on(settings, tmp_path, mqtt_url=own_broker.url).start()
    try:
        heartbeats = [(f"{TOPIC}/device-{number}", b'{"state":"on"}') for number in range(40)]
        for round_ in range(3):
            publish(own_broker.url, heartbeats)
            eventually(lambda round_=round_: daemon.metric("messages_delivered_total") == 40 * (round_ + 1))  # type: ignore[misc]
            if kill:
                eventually(lambda: daemon.metric("messages_in_flight") == 0)
                time.sleep(0.1)  # the PUBACKs have left
                daemon.kill()
                publish(own_broker.url, [])
                daemon.start()
            else:
                own_broker.stop()
                own_broker.start()
                eventually(lambda round_=round_: daemon.metric("mqtt_connections_total") == round_ + 2)  # type: ignore[misc]
                eventually(lambda: daemon.probe("readyz")[0] == 200)
        assert daemon.metric("messages_redelivered_total") == 0
        assert daemon.stop() == 0
    finally:
        daemon.close()
    drain(settings)
    assert query(settings, "SELECT count(*), count(duplicate_of) FROM message") == [(120, 0)]
