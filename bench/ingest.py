"""Ingest alone: the daemon against a bare paho + confluent-kafka loop with the same guarantee, alternated in one run.

Both drain the same kind of backlog: QoS 1 messages that the broker kept for a persistent session, as fast as it hands them
over. The bare loop acknowledges by hand, in arrival order, after the delivery report (acks=all, idempotent), and writes no header.

    python -m bench.ingest --messages 200000 --rounds 3
"""

import argparse
import json
import os
import resource
import select
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from bench.processes import TICKS_PER_SECOND, stat

WINDOW = 10_000  # the daemon's default


def session(mqtt_url: str, client_id: str, *, clean: bool = False, v5: bool = True) -> Client:
    """A paho client with a persistent session, not connected yet."""
    address = urlsplit(mqtt_url)
    place = (address.hostname or "", address.port or 1883, 60)
    if v5:
        client = Client(CallbackAPIVersion.VERSION2, client_id, protocol=MQTTProtocolVersion.MQTTv5, manual_ack=True)
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = 0 if clean else 86_400
        properties.ReceiveMaximum = WINDOW
        client.connect_async(*place, clean_start=clean, properties=properties)
    else:
        client = Client(CallbackAPIVersion.VERSION2, client_id, clean_session=clean, protocol=MQTTProtocolVersion.MQTTv311, manual_ack=True)
        client.connect_async(*place)
    # Without it the plain loop's one write per PUBACK waits for TCP acknowledgements, and it is slower by half.
    client.on_socket_open = lambda _client, _data, sock: sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


@contextmanager
def topics(mqtt_url: str, kafka: str, topic: str, config: dict[str, str]) -> Iterator[None]:
    """A run's topic and its dead-letter topic; both, and the MQTT session of that name, are gone afterwards."""
    names = [topic, f"{topic}-dead"]
    with AdminClient({"bootstrap.servers": kafka}) as admin:
        for future in admin.create_topics([NewTopic(name, 6, 1, config=config) for name in names]).values():
            future.result(20)
        try:
            yield
        finally:
            cleaner = session(mqtt_url, topic, clean=True)
            cleaner.reconnect()
            while not cleaner.is_connected():
                cleaner.loop(0.1)
            cleaner.disconnect()
            for future in admin.delete_topics(names).values():
                future.result(20)


def prepare(mqtt_url: str, client_id: str, topic: str, count: int, *, v5: bool) -> None:
    """Make the broker keep `count` messages for the client id."""
    subscriber = session(mqtt_url, client_id, v5=v5)
    granted: list[object] = []
    subscriber.on_subscribe = lambda *arguments: granted.append(arguments)
    subscriber.on_connect = lambda client, *_: client.subscribe((f"{topic}/#", SubscribeOptions(qos=1)) if v5 else (f"{topic}/#", 1))
    subscriber.reconnect()
    while not granted:
        subscriber.loop(0.1)
    subscriber.disconnect()
    # Not paho: mosquitto_pub needs a third of the time.
    lines = "".join(
        f'{{"deviceId":"sensor-{n % 500:03d}","temp":{n % 400 / 10},"humidity":{n % 100},"n":{n}}}\n' for n in range(count // 20)
    )
    address = urlsplit(mqtt_url)
    publishers = [
        subprocess.Popen(
            ["mosquitto_pub", "-h", address.hostname or "", "-p", str(address.port), "-q", "1", "-l", "-t", f"{topic}/tenant/project-{n}"],
            stdin=subprocess.PIPE, text=True,
        )
        for n in range(20)
    ]  # fmt: skip
    for publisher in publishers:
        assert publisher.stdin is not None
        publisher.stdin.write(lines)
        publisher.stdin.close()
    for publisher in publishers:
        publisher.wait()


def bare(mqtt_url: str, servers: str, client_id: str, topic: str, count: int, *, v5: bool) -> dict[str, float]:
    """The plain loop; runs in a process of its own."""
    producer = Producer(
        {"bootstrap.servers": servers, "acks": "all", "enable.idempotence": True, "linger.ms": 5, "compression.type": "lz4"}
    )
    client = session(mqtt_url, client_id, v5=v5)
    window: deque[list[Any]] = deque()
    state = {"received": 0, "acknowledged": 0, "begun": 0.0, "cpu": 0.0}

    def on_message(_client: Client, _data: object, message: MQTTMessage) -> None:
        if not state["received"]:
            state["begun"], state["cpu"] = time.monotonic(), cpu_seconds()
        state["received"] += 1
        entry = [message.mid, False]
        window.append(entry)

        def delivered(error: object, _message: object) -> None:
            assert error is None
            entry[1] = True

        producer.produce(topic, message.payload, message.topic, on_delivery=delivered)

    client.on_message = on_message
    client.reconnect()
    while state["acknowledged"] < count:
        # client.loop() would read one packet per select(); reading on makes the plain loop about twice as fast.
        sock = client.socket()
        assert sock is not None
        if select.select([sock], [], [], 0.002)[0]:
            for _ in range(100):
                client.loop_read()
        if client.want_write():
            client.loop_write()
        client.loop_misc()
        producer.poll(0)
        while window and window[0][1]:
            client.ack(window.popleft()[0], 1)
            state["acknowledged"] += 1
    seconds, cpu = time.monotonic() - state["begun"], cpu_seconds() - state["cpu"]
    client.disconnect()
    return {
        "per_second": count / seconds,
        "cpu_us": cpu / count * 1e6,
        "resident_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def cpu_seconds() -> float:
    """User and system time of this process."""
    return time.process_time()


def daemon(mqtt_url: str, servers: str, client_id: str, topic: str, count: int) -> dict[str, float]:
    """The ingest daemon as a process; timed from its first message to its last settled one, by its own metrics."""
    port = 29_300
    with tempfile.TemporaryDirectory() as folder:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("IOT_")} | {
            "IOT_MQTT_URL": mqtt_url, "IOT_KAFKA_BOOTSTRAP_SERVERS": servers, "IOT_KAFKA_TOPIC": topic,
            "IOT_KAFKA_DEAD_LETTER_TOPIC": f"{topic}-dead", "IOT_MQTT_TOPIC_FILTER": f"{topic}/#", "IOT_INGEST_CLIENT_ID": client_id,
            "IOT_INGEST_HTTP_PORT": str(port), "IOT_INGEST_STATE_DIR": folder, "IOT_INGEST_IN_FLIGHT_WINDOW": str(WINDOW),
            "IOT_LOCAL_DIR": folder, "IOT_INGEST_LOG_LEVEL": "warning",
        }  # fmt: skip
        process = subprocess.Popen([sys.executable, "-m", "ingest_daemon"], env=environment)
        try:
            start_cpu = begun = 0.0
            while True:
                seen, now = metrics(port), time.monotonic()
                if not begun and seen.get("messages_received_total", 0) > 0:
                    # What was received before this look is taken off the count below.
                    begun, start_cpu, first = now, process_cpu(process.pid), seen["messages_delivered_total"]
                if seen.get("messages_delivered_total", 0) >= count:
                    break
                time.sleep(0.02 if not begun else 0.05)
            done = count - first
            cpu = process_cpu(process.pid) - start_cpu
            status = Path(f"/proc/{process.pid}/status").read_text()
            resident = int(status.split("VmHWM:")[1].split()[0]) / 1024
            return {"per_second": done / (now - begun), "cpu_us": cpu / done * 1e6, "resident_mb": resident}
        finally:
            process.terminate()
            process.wait(20)


def process_cpu(pid: int) -> float:
    """User and system time of another process."""
    _, fields = stat(pid)
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


def metrics(port: int) -> dict[str, float]:
    """The daemon's metrics, empty while it does not listen."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            lines = [line.split() for line in answer.read().decode().splitlines() if line.startswith("iot_ingest_")]
    except OSError:
        return {}
    return {line[0].removeprefix("iot_ingest_"): float(line[1]) for line in lines}


def stored(servers: str, topic: str) -> int:
    """Records in the topic."""
    consumer = Consumer({"bootstrap.servers": servers, "group.id": "bench"})
    partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
    marks = [consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=10) for partition in partitions]
    consumer.close()
    return sum(high - low for low, high in marks)


Contender = Callable[[str], dict[str, float]]


def alternate(
    mqtt: str, kafka: str, *, messages: int, rounds: int, bare_mqtt: str, others: dict[str, Contender] | None = None
) -> dict[str, list[dict[str, float]]]:
    """By contender what each round gave: the bare loop, the daemon, and others, who get the name of a topic and prepare the broker
    themselves. Who begins changes with each round."""

    def run_bare(topic: str) -> dict[str, float]:
        prepare(mqtt, topic, topic, messages, v5=bare_mqtt == "5")
        arguments = ["--mqtt", mqtt, "--kafka", kafka, "--messages", str(messages), "--bare-mqtt", bare_mqtt, "--bare", topic, topic]
        command = [sys.executable, "-m", "bench.ingest", *arguments]
        found: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        return found

    def run_daemon(topic: str) -> dict[str, float]:
        prepare(mqtt, topic, topic, messages, v5=True)
        return daemon(mqtt, kafka, topic, topic, messages)

    contenders: dict[str, Contender] = {"bare": run_bare, "daemon": run_daemon, **(others or {})}
    results: dict[str, list[dict[str, float]]] = {name: [] for name in contenders}
    for number in range(rounds):
        for name in contenders if number % 2 == 0 else reversed(contenders):
            topic = f"bench-ingest-{os.getpid()}-{number}-{name}"
            with topics(mqtt, kafka, topic, {"flush.messages": "1"}):
                result = contenders[name](topic)
                assert stored(kafka, topic) == messages
            results[name].append(result)
            print(
                f"  ingest, {name:8} {result['per_second']:,.0f} messages/s {result['cpu_us']:6.1f} µs CPU {result['resident_mb']:5.0f} MB",
                flush=True,
            )
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mqtt", default=os.environ.get("IOT_MQTT_URL", "mqtt://127.0.0.1:1883"))
    parser.add_argument("--kafka", default=os.environ.get("IOT_KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9092"))
    parser.add_argument("--messages", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bare", nargs=2, metavar=("CLIENT_ID", "TOPIC"), help=argparse.SUPPRESS)
    parser.add_argument("--bare-mqtt", choices=("3.1.1", "5"), default="3.1.1", help="protocol of the bare loop; paho is faster with 3.1.1")
    options = parser.parse_args()
    if options.bare:
        print(json.dumps(bare(options.mqtt, options.kafka, *options.bare, options.messages, v5=options.bare_mqtt == "5")))
        return
    results = alternate(options.mqtt, options.kafka, messages=options.messages, rounds=options.rounds, bare_mqtt=options.bare_mqtt)
    median = {name: {key: statistics.median(run[key] for run in runs) for key in runs[0]} for name, runs in results.items()}
    ratio = median["daemon"]["per_second"] / median["bare"]["per_second"]
    print(
        json.dumps(
            {"messages": options.messages, "rounds": options.rounds, "median": median, "ratio_per_second": round(ratio, 2)}, indent=1
        )
    )


if __name__ == "__main__":
    main()
