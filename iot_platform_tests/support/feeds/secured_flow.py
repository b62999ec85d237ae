"""A daemon between a Mosquitto and a Kafka, one of them with access control, messages that flow, and the proof that all arrived."""

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from iot_platform_tests.support.servers.ingest import Daemon, Record, publish, read_all
from iot_platform_tests.support.servers.own_servers import Broker, OwnKafka
from iot_platform_tests.support.servers.secured_kafka import SecuredKafka
from iot_platform_tests.support.waiting import eventually

_names = itertools.count(1)


class Passage:
    """MQTT → daemon → a topic of its own in Kafka, as a user of its own; towards a SecuredKafka `grant` gives it the right to write."""

    def __init__(self, folder: Path, broker: Broker, kafka: OwnKafka, **settings: Any) -> None:
        number = next(_names)
        self.kafka, self.broker = kafka, broker
        self.user = f"ingest-{number}"
        self.topic, self.dead = f"secured-{number}", f"secured-{number}-dead"
        self.published = 0
        kafka.create(self.topic, self.dead)
        self.daemon = Daemon(
            folder,
            mqtt_url=broker.url,
            **{
                "mqtt_topic_filter": "f/#",
                "kafka_bootstrap_servers": kafka.bootstrap_servers,
                "kafka_topic": self.topic,
                "kafka_dead_letter_topic": self.dead,
                "ingest_spool_after_seconds": 1,
                **settings,
            },
        )

    def start(self) -> Daemon:
        """Start the daemon and wait until it is subscribed: what is published from now on is its business, ready or not."""
        self.daemon.start(ready=False)
        eventually(lambda: self.daemon.metric("mqtt_connected"))
        return self.daemon

    def set(self, **settings: Any) -> None:
        """Settings for the daemon's next start."""
        self.daemon.environment.update({f"IOT_{name.upper()}": str(value) for name, value in settings.items()})

    def grant(self) -> None:
        """The rights that the daemon needs."""
        for topic in (self.topic, self.dead):
            assert isinstance(self.kafka, SecuredKafka)
            self.kafka.grant(self.user, "WRITE", "DESCRIBE", topic=topic)

    def publish(self, count: int, *, pause: float = 0.0) -> None:
        """So many messages, numbered on; returns when the broker has them."""
        first, self.published = self.published, self.published + count
        messages = [(f"f/{number % 7}", b"%d" % number) for number in range(first, first + count)]
        publish(self.broker.url, messages, pace=(lambda _: time.sleep(pause)) if pause else None)

    @contextmanager
    def flowing(self) -> Iterator[None]:
        """About 200 messages a second inside the block."""
        done = threading.Event()

        def run() -> None:
            while not done.is_set():
                self.publish(50, pause=0.005)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def problems(self) -> str:
        """The body of /readyz."""
        return self.daemon.probe("readyz")[1]

    def await_problem(self, *parts: str) -> None:
        """Until /readyz says all of this."""
        said = [""]

        def all_said() -> bool:
            said.append(self.problems())
            return all(part in said[-1] for part in parts)

        try:
            eventually(all_said)
        except AssertionError as error:
            raise AssertionError(f"/readyz lacks {parts}: {said[-1]}") from error

    def await_progress(self, count: int = 200) -> None:
        """Until the daemon has received so many more messages."""
        before = self.daemon.metric("messages_received_total")
        eventually(lambda: self.daemon.metric("messages_received_total") >= before + count)

    def check(self) -> dict[bytes, Record]:
        """What was published is in Kafka, in order per source; a repeat is one that the drain recognises. Ready, and nothing is spooled."""
        eventually(lambda: self.daemon.metric("messages_delivered_total") >= self.published, 60, f"not delivered: {self.problems()}")
        eventually(lambda: self.daemon.metric("spool_messages") == 0 and self.daemon.metric("messages_in_flight") == 0)
        first: dict[bytes, Record] = {}
        for record in read_all(self.kafka.bootstrap_servers, self.topic):
            same = first.setdefault(record.value, record)
            assert record is same or record.dup or record.headers == same.headers
        assert sorted(set(range(self.published)) - {int(value) for value in first}) == []
        for topic in {record.topic for record in first.values()}:
            numbers = [int(value) for value, record in first.items() if record.topic == topic]
            assert numbers == sorted(numbers)
        eventually(lambda: self.daemon.probe("readyz")[0] == 200, what=f"not ready: {self.problems()}")
        assert read_all(self.kafka.bootstrap_servers, self.dead) == []
        return first
