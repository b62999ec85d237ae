"""Kafka refuses whole batches, or its topic is away: innocent messages arrive, in order, and nothing becomes a dead letter for it."""

import json
import random

from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from iot_platform_tests.support.servers.ingest import Daemon, await_records, publish, read_all
from iot_platform_tests.support.servers.own_servers import Broker, OwnKafka
from iot_platform_tests.support.waiting import eventually


class Topic:
    """A topic with settings of its own, which the daemon uses instead of its usual one."""

    def __init__(self, kafka: OwnKafka, daemon: Daemon, **config: str) -> None:
        self.kafka, self.daemon = kafka, daemon
        self.name = f"{daemon.environment['IOT_KAFKA_TOPIC']}-own"
        self.dead = daemon.environment["IOT_KAFKA_DEAD_LETTER_TOPIC"]
        self.config = {name.replace("_", "."): value for name, value in config.items()}
        daemon.environment["IOT_KAFKA_TOPIC"] = self.name
        daemon.environment["IOT_INGEST_IN_FLIGHT_WINDOW"] = "2000"
        self.create()

    def create(self) -> None:
        def made() -> bool:
            with self._admin() as admin:
                future = admin.create_topics([NewTopic(self.name, 2, 1, config=self.config)])[self.name]
                return future.exception(30) is None  # one that is being deleted exists for a moment more

        eventually(made)

    def delete(self) -> None:
        with self._admin() as admin:
            admin.delete_topics([self.name])[self.name].result(30)

    def alter(self, name: str, value: str) -> None:
        resource = ConfigResource(ResourceType.TOPIC, self.name)
        resource.add_incremental_config(ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET))
        with self._admin() as admin:
            admin.incremental_alter_configs([resource])[resource].result(30)

    def _admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.kafka.bootstrap_servers})

    def values(self, count: int) -> list[bytes]:
        """What it holds once there are so many, in the order of the log."""
        return [record.value for record in await_records(self.kafka.bootstrap_servers, self.name, count)]


def numbered(first: int, last: int, size: int = 0) -> list[tuple[str, bytes]]:
    """Of one source, which compression makes no smaller."""
    chance = random.Random(first)
    return [("f/1", b"%d " % number + chance.randbytes(size)) for number in range(first, last)]


def number(value: bytes) -> int:
    return int(value.split(b" ", 1)[0])


def test_batches_above_the_topic_s_limit_become_smaller(own_broker: Broker, own_kafka: OwnKafka, own_daemon: Daemon) -> None:
    topic = Topic(own_kafka, own_daemon, max_message_bytes="20000")
    own_daemon.start()
    own_kafka.pause()  # so that batches grow large
    messages = numbered(0, 3000, 200)
    messages[500:500] = [("f/large", b"-1 " + random.Random(1).randbytes(60_000))]
    publish(own_broker.url, messages)
    own_kafka.resume()
    values = topic.values(3000)
    assert [number(value) for value in values] == list(range(3000))
    (dead,) = await_records(own_kafka.bootstrap_servers, topic.dead, 1)
    assert (number(dead.value), len(dead.value)) == (-1, 60_003)
    eventually(lambda: own_daemon.probe("readyz")[0] == 200)
    eventually(
        lambda: json.loads(own_daemon.probe("accounting")[1])["dead_lettered"] == 1
    )  # a record is in Kafka before the daemon hears of it


def test_refused_timestamps_are_no_reason_for_a_dead_letter(own_broker: Broker, own_kafka: OwnKafka, own_daemon: Daemon) -> None:
    topic = Topic(own_kafka, own_daemon, message_timestamp_type="CreateTime", message_timestamp_before_max_ms="1")
    own_daemon.environment["IOT_INGEST_KAFKA_OPTIONS"] = '{"linger.ms": 50}'  # older than a millisecond when they arrive
    own_daemon.start()
    publish(own_broker.url, numbered(0, 400))
    eventually(lambda: own_daemon.metric("spool_messages") == 400)
    # Several wrong timestamps in a batch are reported as INVALID_RECORD, which would be about the message: each is tried alone first.
    eventually(lambda: "message.timestamp.type=LogAppendTime" in own_daemon.probe("readyz")[1])
    topic.alter("message.timestamp.type", "LogAppendTime")
    assert sorted(number(value) for value in topic.values(400)) == list(range(400))
    eventually(lambda: own_daemon.probe("readyz")[0] == 200)
    assert read_all(own_kafka.bootstrap_servers, topic.dead) == []


def test_a_topic_that_is_away_gets_everything_when_it_is_back(own_broker: Broker, own_kafka: OwnKafka, own_daemon: Daemon) -> None:
    topic = Topic(own_kafka, own_daemon)
    # librdkafka waits 30 s for a topic; then even a producer without any time-out fails its messages (_UNKNOWN_PARTITION).
    own_daemon.environment["IOT_INGEST_KAFKA_OPTIONS"] = json.dumps(
        {"topic.metadata.propagation.max.ms": 1000, "topic.metadata.refresh.interval.ms": 500}
    )
    own_daemon.start()
    publish(own_broker.url, numbered(0, 200))
    topic.values(200)
    topic.delete()
    publish(own_broker.url, numbered(200, 700))
    eventually(lambda: own_daemon.metric("spool_messages") == 500)
    eventually(lambda: "IOT_KAFKA_TOPIC" in own_daemon.probe("readyz")[1])
    eventually(lambda: any(str(event.get("code")).startswith("_UNKNOWN") for event in own_daemon.events()), what="no failed report")
    topic.create()
    assert [number(value) for value in topic.values(500)] == list(range(200, 700))
    eventually(lambda: own_daemon.probe("readyz")[0] == 200)
    assert read_all(own_kafka.bootstrap_servers, topic.dead) == []
