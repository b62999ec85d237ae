"""`iot simulate` against the real broker: rate, reproducibility, acknowledgements, lost connections, and how it ends."""

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from iot_platform.settings import Settings, exports
from iot_platform.simulator.connection import Broker, Delivery
from iot_platform.simulator.fleet import FleetOptions
from iot_platform.simulator.generator import Generator
from iot_platform.simulator.message import Message
from iot_platform.simulator.publisher import Publisher, Summary
from iot_platform.simulator.record import read_record
from iot_platform_tests.support.servers.stack import Servers
from iot_platform_tests.support.waiting import eventually


@pytest.fixture
def own(servers: Servers) -> Settings:
    """The broker with a topic root of the test's own."""
    root = f"simulation-{uuid4().hex}"
    return Settings(mqtt_url=servers.mqtt_url, mqtt_topic_filter=f"{root}/#", topic_pattern=root + "/{tenant}/{project}/{device...}")  # type: ignore[arg-type]


@pytest.fixture
def received(own: Settings) -> Iterator[list[tuple[str, bytes]]]:
    """What a subscriber with a persistent session receives, in order."""
    messages: list[tuple[str, bytes]] = []
    subscribed = threading.Event()
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=f"subscriber-{uuid4().hex}", clean_session=False)
    client.on_connect = lambda *_: client.subscribe(own.mqtt_topic_filter, qos=1) and None
    client.on_subscribe = lambda *_: subscribed.set()
    client.on_message = lambda _client, _data, message: messages.append((message.topic, message.payload))
    broker = Broker.from_settings(own)
    client.connect(broker.host, broker.port)
    client.loop_start()
    assert subscribed.wait(10)
    yield messages
    client.disconnect()
    client.loop_stop()


def simulate(settings: Settings, *options: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "iot_platform.cli.main", "simulate", *options]
    return subprocess.Popen(command, env={**os.environ, **exports(settings)}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_the_broker_delivers_what_the_record_says(own: Settings, received: list[tuple[str, bytes]], tmp_path: Path) -> None:
    record = tmp_path / "published.jsonl"
    process = simulate(
        own, "--rate=max", "--count=3000", "--malformed=0.1", "--duplicate=0.05", "--start=2026-11-23T10:00:00Z", f"--record={record}"
    )
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert "published 3,000" in output
    published = list(read_record(record))
    eventually(lambda: len(received) >= 3000, 20, lambda: ("3000 messages", len(received)), pause=0.1)
    assert all(item.acked and item.sends == 1 for item in published)
    assert sorted((item.message.topic, item.message.payload) for item in published) == sorted(received)
    options = FleetOptions(malformed=0.1, duplicate=0.05)
    again = itertools.islice(Generator(options, own.topic_pattern, 1_795_428_000_000_000, 0).messages(), 3000)
    assert [message.payload for message in again] == [
        item.message.payload for item in sorted(published, key=lambda item: item.message.number)
    ]


def test_a_device_keeps_its_order(own: Settings, received: list[tuple[str, bytes]]) -> None:
    plan = list(itertools.islice(Generator(FleetOptions(), own.topic_pattern, 0, 0).messages(), 2000))
    publish(own, plan)
    eventually(lambda: len(received) >= 2000, 20, "2000 messages", pause=0.1)
    for device in {message.device for message in plan}:
        own_payloads = [message.payload for message in plan if message.device == device and len(message.payload) > 20]
        others = {message.payload for message in plan if message.device != device}
        distinct = [payload for payload in own_payloads if payload not in others]
        wanted = set(distinct)
        assert [payload for _, payload in received if payload in wanted] == distinct


def publish(settings: Settings, plan: list[Message], settled: list[Delivery] | None = None) -> Summary:
    publisher = Publisher(Broker.from_settings(settings), 3, f"test-{uuid4().hex}", settled.append if settled is not None else None)
    return publisher.run(plan, threading.Event())


def test_the_rate_is_exact(own: Settings) -> None:
    plan = itertools.islice(Generator(FleetOptions(), own.topic_pattern, 0, 500).messages(), 1500)
    summary = publish(own, list(plan))
    assert summary.acknowledged == 1500
    assert 2.9 <= summary.seconds <= 6  # the last message is due at 2.998 s; a busy machine may lag, never lead


def test_a_lost_broker_costs_no_message(servers: Servers, own: Settings, received: list[tuple[str, bytes]]) -> None:
    plan = list(itertools.islice(Generator(FleetOptions(duplicate=0), own.topic_pattern, 0, 500).messages(), 2500))
    settled: list[Delivery] = []
    worker = threading.Thread(target=publish, args=(own, plan, settled))
    worker.start()
    eventually(lambda: len(settled) >= 500, 30, "500 acknowledged", pause=0.1)
    os.kill(servers.supervisor.state("mosquitto").pid, signal.SIGKILL)  # the supervisor starts it again
    worker.join(60)
    assert not worker.is_alive()
    assert len(settled) == 2500
    assert all(delivery.acked_us is not None for delivery in settled)
    repeated = {delivery.message.payload for delivery in settled if delivery.sends > 1}
    assert len(repeated) <= 1500  # three windows of 500: only what was in flight is sent again


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(own: Settings, tmp_path: Path, number: signal.Signals) -> None:
    record = tmp_path / "published.jsonl"
    process = simulate(own, "--rate=200", "--duration=0", f"--record={record}")
    eventually(lambda: record.exists() and record.stat().st_size > 20_000, 20, "publishing", pause=0.1)
    process.send_signal(number)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 0, output
    numbers = sorted(item.message.number for item in read_record(record))
    assert numbers == list(range(len(numbers)))
    assert f"acknowledged {len(numbers):,}" in output


@pytest.mark.parametrize(
    ("option", "variable", "text"),
    [
        ("--rate=fast", {}, "--rate"),
        ("--late=2", {}, "--late"),
        ("--start=now", {}, "--start"),
        ("--record=/nowhere/x.jsonl", {}, "--record"),
        ("--mix=odd", {}, "--mix"),
        ("--count=1", {"mqtt_url": "mqtt://127.0.0.1:9"}, "IOT_MQTT_URL"),
        ("--count=1", {"topic_pattern": "a/{tenant}/b", "project_pointers": ("/p",)}, "IOT_TOPIC_PATTERN"),
    ],
)
def test_what_cannot_work_is_said_in_one_line(own: Settings, option: str, variable: dict[str, object], text: str) -> None:
    process = simulate(Settings(**{**exports_of(own), **variable}), option)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 1
    assert text in output
    assert "Traceback" not in output


def exports_of(settings: Settings) -> dict[str, object]:
    return {name: getattr(settings, name) for name in settings.model_fields_set}


def test_a_full_broker_window_is_respected(own: Settings, received: list[tuple[str, bytes]]) -> None:
    """More in flight than the broker allows is a protocol error that closes the connection: none may be lost at full speed."""
    plan = list(itertools.islice(Generator(FleetOptions(), own.topic_pattern, 0, 0).messages(), 4000))
    began = time.monotonic()
    summary = publish(own, plan)
    assert (summary.acknowledged, summary.reconnects) == (4000, 0)
    assert time.monotonic() - began < 30
    eventually(lambda: len(received) >= 4000, 20, "4000 messages", pause=0.1)
