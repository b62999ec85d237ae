"""The spool: how fast messages go to disk while Kafka is away, how fast they leave it afterwards, and what memory that takes.

Needs a running Mosquitto and Kafka (`SIMULATOR=0 make up`), whose other users it does not disturb: for the daemon of this
benchmark Kafka is away because it is told a port where nobody listens; then it is started again with the right one.

    .venv/bin/python -m bench.spool --seconds 30 --rate 6000
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from bench.ingest import metrics, process_cpu, stored, topics
from iot_platform.local.ports import free_ports

PUBLISHERS = 4
TICK_SECONDS = 0.05
LIMIT_SECONDS = 600.0


@dataclass
class Daemon:
    """The ingest daemon; its memory is sampled at each look at its metrics."""

    environment: dict[str, str]
    port: int
    resident_mb: list[float] = field(default_factory=list)
    process: "subprocess.Popen[bytes] | None" = None

    def start(self, kafka: str) -> None:
        """Run it with that Kafka."""
        command = [sys.executable, "-m", "ingest_daemon"]
        self.process = subprocess.Popen(command, env=self.environment | {"IOT_KAFKA_BOOTSTRAP_SERVERS": kafka})
        self.until(lambda found: found.get("mqtt_connected", 0) == 1)
        self.resident_mb = []

    def look(self) -> dict[str, float]:
        """Its metrics now."""
        assert self.process is not None
        if self.process.poll() is not None:
            raise SystemExit(f"the daemon ended with {self.process.returncode}")
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        self.resident_mb.append(int(status.split("VmRSS:")[1].split()[0]) / 1024)
        return metrics(self.port)

    def until(self, reached: Callable[[dict[str, float]], bool]) -> float:
        """Wait; how long it took."""
        begun = time.monotonic()
        while not reached(self.look()):
            if time.monotonic() - begun > LIMIT_SECONDS:
                raise SystemExit(f"not within {LIMIT_SECONDS:.0f} s: {self.look()}")
            time.sleep(0.1)
        return time.monotonic() - begun

    def cpu_seconds(self) -> float:
        """Used since its start."""
        assert self.process is not None
        return process_cpu(self.process.pid)

    def stop(self) -> None:
        """SIGTERM, and wait."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(60)


def publish(mqtt: str, topic: str, rate: int, seconds: float, watch: Callable[[], object]) -> int:
    """QoS 1 at that rate, from several mosquitto_pub; how many messages. `watch` runs about once a second."""
    address = urlsplit(mqtt)
    command = ["mosquitto_pub", "-h", address.hostname or "", "-p", str(address.port or 1883), "-q", "1", "-l", "-t"]
    publishers = [
        subprocess.Popen([*command, f"{topic}/tenant/project-{n}"], stdin=subprocess.PIPE, text=True, bufsize=1 << 20)
        for n in range(PUBLISHERS)
    ]
    sent = 0
    begun = watched = time.monotonic()
    while (elapsed := time.monotonic() - begun) < seconds:
        due = int(elapsed * rate)
        for number in range(sent, due):
            pipe = publishers[number % PUBLISHERS].stdin
            assert pipe is not None
            pipe.write(f'{{"deviceId":"sensor-{number % 500:03d}","temp":{number % 400 / 10},"humidity":{number % 100},"n":{number}}}\n')
        sent = due
        for publisher in publishers:
            assert publisher.stdin is not None
            publisher.stdin.flush()
        if time.monotonic() - watched > 1:
            watched = time.monotonic()
            watch()
        time.sleep(TICK_SECONDS)
    for publisher in publishers:
        assert publisher.stdin is not None
        publisher.stdin.close()
        publisher.wait()
    return sent


def run(options: argparse.Namespace, folder: Path, topic: str) -> dict[str, float]:
    """Fill, then drain."""
    port, nobody = free_ports(2)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("IOT_")} | {
        "IOT_MQTT_URL": options.mqtt, "IOT_KAFKA_TOPIC": topic, "IOT_KAFKA_DEAD_LETTER_TOPIC": f"{topic}-dead",
        "IOT_MQTT_TOPIC_FILTER": f"{topic}/#", "IOT_INGEST_CLIENT_ID": topic, "IOT_INGEST_HTTP_PORT": str(port),
        "IOT_INGEST_STATE_DIR": str(folder), "IOT_LOCAL_DIR": str(folder), "IOT_INGEST_LOG_LEVEL": "error",
        "IOT_INGEST_SPOOL_AFTER_SECONDS": "0.5",
    }  # fmt: skip
    daemon = Daemon(environment, port)
    try:
        daemon.start(f"127.0.0.1:{nobody}")
        begun = time.monotonic()
        sent = publish(options.mqtt, topic, options.rate, options.seconds, daemon.look)
        daemon.until(lambda found: found["spool_messages"] >= sent)
        fill_seconds, fill_cpu = time.monotonic() - begun, daemon.cpu_seconds()
        fill_memory = daemon.resident_mb
        size = daemon.look()["spool_bytes"]
        daemon.stop()
        daemon.start(options.kafka)
        begun = time.monotonic()
        daemon.until(lambda found: found["spool_messages"] == 0 and found["messages_delivered_total"] >= sent)
        drain_seconds, drain_cpu = time.monotonic() - begun, daemon.cpu_seconds()
    finally:
        daemon.stop()
    in_kafka = stored(options.kafka, topic)
    if in_kafka != sent:
        raise SystemExit(f"{sent} messages were published, Kafka has {in_kafka}")
    return {
        "messages": sent,
        "into_spool_per_second": round(sent / fill_seconds),
        "drained_per_second": round(sent / drain_seconds),
        "drain_to_fill": round(fill_seconds / drain_seconds, 2),
        "fill_cpu_us_per_message": round(fill_cpu / sent * 1e6, 1),
        "drain_cpu_us_per_message": round(drain_cpu / sent * 1e6, 1),
        "spool_bytes_per_message": round(size / sent),
        "fill_resident_mb_first_quarter": round(max(fill_memory[: len(fill_memory) // 4 + 1])),
        "fill_resident_mb_peak": round(max(fill_memory)),
        "drain_resident_mb_peak": round(max(daemon.resident_mb)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mqtt", default=os.environ.get("IOT_MQTT_URL", "mqtt://127.0.0.1:1883"))
    parser.add_argument("--kafka", default=os.environ.get("IOT_KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9092"))
    parser.add_argument("--seconds", type=float, default=20.0, help="length of the outage")
    parser.add_argument("--rate", type=int, default=6000, help="messages published per second")
    parser.add_argument("--folder", type=Path, help="where the spool is made, on the disk to measure; default: a temporary folder")
    options = parser.parse_args()
    topic = f"bench-spool-{os.getpid()}"
    with topics(options.mqtt, options.kafka, topic, {}), tempfile.TemporaryDirectory(dir=options.folder) as folder:
        print(json.dumps(run(options, Path(folder), topic), indent=1))


if __name__ == "__main__":
    main()
