"""What the ingest tests share: the daemon as a process of its own, a publisher, and everything a Kafka topic holds."""

import json
import os
import signal
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from iot_platform.local.ports import free_ports
from iot_platform.settings import Settings
from iot_platform_tests.support.waiting import eventually


class Daemon:
    """`python -m ingest_daemon` with settings of the test's own."""

    def __init__(self, folder: Path, **settings: object) -> None:
        self.port = free_ports(1)[0]
        self.log = folder / "ingest.log"
        own = {
            "ingest_http_port": self.port,
            "ingest_state_dir": folder / "state",
            "ingest_client_id": f"test-{self.port}",
            "local_dir": folder,
        }
        self.environment = {f"IOT_{name.upper()}": str(value) for name, value in {**own, **settings}.items()}
        self.process: subprocess.Popen[bytes] | None = None

    @classmethod
    def on(cls, platform: Settings, folder: Path, **settings: object) -> Self:
        """From a platform's broker to its topics; further settings, or others than these, by keyword."""
        of_platform = {
            "mqtt_url": platform.mqtt_url.get_secret_value(),
            "kafka_bootstrap_servers": platform.kafka_bootstrap_servers,
            "kafka_topic": platform.kafka_topic,
            "kafka_dead_letter_topic": platform.kafka_dead_letter_topic,
        }
        return cls(folder, **{**of_platform, **settings})

    def start(self, *, ready: bool = True) -> Self:
        """Run it; wait for readiness unless told otherwise."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("IOT_")}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "ingest_daemon"], env={**environment, **self.environment}, stdout=log, stderr=log
            )
        if ready:
            eventually(lambda: self.probe("readyz")[0] == 200, what=f"not ready: {self.log}")
        return self

    def probe(self, path: str) -> tuple[int, str]:
        """Status and body; 0 when nothing listens, or the daemon died in the middle of its answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except (OSError, HTTPException):
            return 0, ""

    def metric(self, name: str) -> float:
        """One metric's value; 0 when nothing listens."""
        lines = [line.split() for line in self.probe("metrics")[1].splitlines()]
        return next((float(line[1]) for line in lines if line[0] == f"iot_ingest_{name}"), 0.0)

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def stop(self, *, signals: int = 1, seconds: float = 20) -> int:
        """SIGTERM, repeated if asked; the exit code."""
        assert self.process is not None
        for _ in range(signals):
            self.process.send_signal(signal.SIGTERM)
            time.sleep(0.2)  # two equal signals at once are one
        return self.process.wait(seconds)

    def events(self) -> list[dict[str, Any]]:
        """Its log lines."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    def close(self) -> None:
        """End it if it runs."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)


def publish(
    mqtt_url: str, messages: Iterable[tuple[str, bytes]], *, qos: int = 1, retain: bool = False, pace: Callable[[int], None] | None = None
) -> None:
    """Publish and return when the broker has acknowledged all; `pace(n)` runs before the n-th."""
    address = urlsplit(mqtt_url)
    client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
    client.max_inflight_messages_set(200)
    client.connect(address.hostname or "", address.port or 1883)
    client.loop_start()
    last = None
    for number, (topic, payload) in enumerate(messages):
        if pace is not None:
            pace(number)
        last = client.publish(topic, payload, qos=qos, retain=retain)
    if last is not None:
        last.wait_for_publish(60)
        eventually(lambda: not client.want_write())
    client.disconnect()
    client.loop_stop()


def create_topics(bootstrap_servers: str, *names: str, partitions: int = 2) -> None:
    """Create topics with Kafka's own settings; it may just have been resumed, so that takes a while."""
    with AdminClient({"bootstrap.servers": bootstrap_servers}) as admin:
        for future in admin.create_topics([NewTopic(name, partitions, 1) for name in names]).values():
            future.result(60)


def forget(mqtt_url: str, client_id: str) -> None:
    """Delete a session at the broker."""
    address = urlsplit(mqtt_url)
    client = Client(CallbackAPIVersion.VERSION2, client_id, protocol=MQTTProtocolVersion.MQTTv5)
    client.connect(address.hostname or "", address.port or 1883, clean_start=True)
    while not client.is_connected():
        client.loop(0.1)
    client.disconnect()


@dataclass(frozen=True)
class Record:
    """One Kafka record, its header unpacked."""

    partition: int
    offset: int
    topic: str
    value: bytes
    headers: dict[str, bytes]
    flags: int
    packet_id: int
    received_at_us: int
    connection: int
    sequence: int
    client_id: str
    earlier: tuple[tuple[int, int, int], ...] = ()  # connection, sequence and receive time of its earlier receipts

    @property
    def dup(self) -> bool:
        """Whether the MQTT broker marked it as a repeat."""
        return bool(self.flags & 1)


def records_held(bootstrap_servers: str, topic: str) -> int:
    """How many records a topic holds now, by its watermarks.

    Raises:
        KafkaException: Kafka does not answer within 10 s.
    """
    with _reader(bootstrap_servers) as consumer:
        return sum(high - low for low, high in _watermarks(consumer, topic).values())


def read_all(bootstrap_servers: str, topic: str) -> list[Record]:
    """Every record that a topic holds now, by partition and offset.

    Raises:
        KafkaException: Kafka does not answer within 10 s.
    """
    records: list[Record] = []
    with _reader(bootstrap_servers) as consumer:
        watermarks = _watermarks(consumer, topic)
        # All at once: the first fetch after a change of the assignment waits for the one before it, which waits for records.
        consumer.assign([TopicPartition(topic, partition, low) for partition, (low, _) in watermarks.items()])
        missing = sum(high - low for low, high in watermarks.values())
        while missing:
            for message in consumer.consume(min(1000, missing), timeout=10):  # it waits until it has so many
                assert message.error() is None, message.error()
                if message.offset() < watermarks[message.partition()][1]:
                    records.append(_record(message))
                    missing -= 1
    return sorted(records, key=lambda record: (record.partition, record.offset))


def await_records(bootstrap_servers: str, topic: str, count: int) -> list[Record]:
    """Every record of a topic, once there are so many; a Kafka that was just resumed may refuse for a moment."""

    def look() -> list[Record] | None:
        try:
            return read_all(bootstrap_servers, topic) if records_held(bootstrap_servers, topic) >= count else None
        except KafkaException:
            return None

    records: list[Record] = eventually(look, 60, f"fewer than {count} records in {topic}")
    return records


@contextmanager
def _reader(bootstrap_servers: str) -> Iterator[Consumer]:
    consumer = Consumer({"bootstrap.servers": bootstrap_servers, "group.id": "unused", "enable.auto.commit": False})
    try:
        yield consumer
    finally:
        consumer.close()


def _watermarks(consumer: Consumer, topic: str) -> dict[int, tuple[int, int]]:
    partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
    return {number: consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=10) for number in sorted(partitions)}


def _record(message: Any) -> Record:
    headers = dict(message.headers() or [])
    version, *fields = struct.unpack("!BBHqqQ", headers["iot"][:28])
    assert version in (1, 2)
    assert message.value() is not None
    rest = headers["iot"][28:]
    receipts = struct.unpack_from("!qB", rest)[1] if version == 2 else 0
    earlier = tuple(struct.iter_unpack("!qQq", rest[9 : 9 + 24 * receipts]))
    client_id = rest[9 + 24 * receipts if version == 2 else 0 :].decode()
    return Record(message.partition(), message.offset(), message.key().decode(), message.value(), headers, *fields, client_id, earlier)
