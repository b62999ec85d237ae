"""The daemon when its servers stop, hang or refuse, on a Mosquitto and a Kafka that these tests own."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from iot_platform.local import probes
from iot_platform.local.kafka import KafkaServer
from iot_platform.local.ports import free_ports
from iot_platform.settings import Settings
from iot_platform_tests.fix_ingest import Daemon, await_records, eventually, publish


class Broker:
    """A Mosquitto of the test's own; stopped and started it keeps its sessions."""

    def __init__(self, folder: Path, port: int, *lines: str) -> None:
        self.url = f"mqtt://127.0.0.1:{port}"
        self.port = port
        self.config = folder / "mosquitto.conf"
        data = folder / "mosquitto"
        data.mkdir()
        user = "user root\n" if os.geteuid() == 0 else ""
        base = f"persistence true\npersistence_location {data}/\nmax_queued_messages 100000\nmax_inflight_messages 2000\n"
        listener = "\n".join(lines or [f"listener {port} 127.0.0.1", "allow_anonymous true"])
        self.config.write_text(f"{listener}\n{user}{base}")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> "Broker":
        command = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
        self.process = subprocess.Popen([command, "-c", str(self.config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        eventually(self._listens)
        return self

    def _listens(self) -> bool:
        try:
            probes.mqtt(Settings(mqtt_url=self.url))  # type: ignore[arg-type]
        except probes.NotReadyError:
            return False
        return True

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(10)
            self.process = None


class OwnKafka:
    """A Kafka process that a test may stop."""

    def __init__(self, server: KafkaServer) -> None:
        self.bootstrap_servers = server.bootstrap_servers
        program = server.program()
        self._log = (server.log_dir / "kafka.log").open("ab")
        self.process = subprocess.Popen(
            program.command, cwd=program.directory, env=dict(program.environment), stdout=self._log, stderr=self._log
        )
        self._server = server

    def await_ready(self) -> bool:
        """Whether it serves; False when it died at its start, because somebody took a port meanwhile."""
        eventually(lambda: self.process.poll() is not None or self._serves(), 90)
        return self.process.poll() is None

    def _serves(self) -> bool:
        try:
            self._server.check()
        except probes.NotReadyError:
            return False
        return True

    def create(self, *names: str) -> None:
        admin = AdminClient({"bootstrap.servers": self.bootstrap_servers})
        for future in admin.create_topics([NewTopic(name, 2, 1) for name in names]).values():
            future.result(60)  # it may just have been paused

    def pause(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        self.resume()
        self.process.kill()
        self.process.wait(20)
        self._log.close()


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnKafka]:
    folder = tmp_path_factory.mktemp("kafka")
    for name in ("logs", "run"):
        (folder / name).mkdir()
    defaults = Settings()
    for _ in range(3):
        server = KafkaServer(folder, defaults.cache_dir, free_ports(1)[0], defaults)
        server.prepare(lambda _: None)
        made = OwnKafka(server)
        try:
            if made.await_ready():
                yield made
                return
        finally:
            made.close()
    pytest.fail(f"Kafka does not start: {folder}")


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    made = Broker(tmp_path, free_ports(1)[0]).start()
    yield made
    made.stop()


@pytest.fixture
def daemon(broker: Broker, kafka: OwnKafka, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Daemon]:
    """Not started yet; its topics exist."""
    name = request.node.name
    kafka.create(name, f"{name}-dead")
    made = Daemon(
        tmp_path,
        mqtt_url=broker.url,
        mqtt_topic_filter="f/#",
        kafka_bootstrap_servers=kafka.bootstrap_servers,
        kafka_topic=name,
        kafka_dead_letter_topic=f"{name}-dead",
        ingest_keepalive_seconds=5,
        ingest_in_flight_window=100,
    )
    yield made
    kafka.resume()
    made.close()


def numbered(count: int, start: int = 0) -> list[tuple[str, bytes]]:
    return [(f"f/{number % 3}", b"%d" % number) for number in range(start, start + count)]


def values(kafka: OwnKafka, daemon: Daemon, count: int) -> list[bytes]:
    """The topic's values, once there are so many."""
    return [record.value for record in await_records(kafka.bootstrap_servers, daemon.environment["IOT_KAFKA_TOPIC"], count)]


def test_a_hanging_kafka_holds_the_window_and_the_mqtt_connection_stays(broker: Broker, kafka: OwnKafka, daemon: Daemon) -> None:
    daemon.start()
    publish(broker.url, numbered(10))
    values(kafka, daemon, 10)
    kafka.pause()
    publish(broker.url, numbered(500, 10))
    publish(broker.url, [("f/qos0", b"%d" % number) for number in range(50)], qos=0)  # not subject to the window
    eventually(lambda: daemon.metric("messages_in_flight") == 100)
    until = time.monotonic() + 16  # three keepalives: a loop that doesn't serve MQTT would be thrown out
    while time.monotonic() < until:
        assert daemon.metric("messages_in_flight") == 100
        assert daemon.probe("healthz")[0] == 200
        time.sleep(0.5)
    assert daemon.probe("readyz")[0] == 503
    assert "IOT_KAFKA_BOOTSTRAP_SERVERS" in daemon.probe("readyz")[1]
    assert daemon.metric("messages_delivered_total") == 10
    kafka.resume()
    found = values(kafka, daemon, 560)
    assert sorted(found) == sorted([b"%d" % number for number in range(510)] + [b"%d" % number for number in range(50)])
    assert daemon.metric("mqtt_connections_total") == 1
    eventually(lambda: daemon.probe("readyz")[0] == 200)
    assert daemon.stop() == 0


def test_leaving_while_kafka_hangs_is_bounded_and_the_rest_comes_again(broker: Broker, kafka: OwnKafka, daemon: Daemon) -> None:
    daemon.environment["IOT_INGEST_SHUTDOWN_SECONDS"] = "1"
    daemon.start()
    kafka.pause()
    publish(broker.url, numbered(50))
    eventually(lambda: daemon.metric("messages_in_flight") == 50)
    begun = time.monotonic()
    assert daemon.stop() == 4
    assert time.monotonic() - begun < 8
    daemon.environment["IOT_INGEST_SHUTDOWN_SECONDS"] = "100"
    daemon.start(ready=False)
    eventually(lambda: daemon.metric("messages_in_flight") == 50)
    assert daemon.stop(signals=2) == 4
    kafka.resume()
    daemon.start()
    assert set(values(kafka, daemon, 50)) == {value for _, value in numbered(50)}
    assert daemon.metric("messages_redelivered_total") == 50


def test_a_restarted_broker_is_found_again_with_its_messages(broker: Broker, kafka: OwnKafka, daemon: Daemon) -> None:
    daemon.start()
    publish(broker.url, numbered(10))
    values(kafka, daemon, 10)
    broker.stop()
    eventually(lambda: "IOT_MQTT_URL" in daemon.log.read_text() and daemon.probe("readyz")[0] == 503)
    broker.start()
    publish(broker.url, numbered(10, 10))
    assert set(values(kafka, daemon, 20)) == {value for _, value in numbered(20)}
    assert daemon.metric("mqtt_sessions_lost_total") == 0
    assert daemon.probe("readyz")[0] == 200


def test_kafka_hanging_across_reconnections_keeps_the_window(broker: Broker, kafka: OwnKafka, daemon: Daemon) -> None:
    """Messages of dead connections count against the window: a flapping broker can't pile up redeliveries in memory."""
    daemon.start()
    kafka.pause()
    publish(broker.url, numbered(300))
    eventually(lambda: daemon.metric("messages_in_flight") == 100)
    for connections in (2, 3):
        broker.stop()
        broker.start()
        eventually(lambda expected=connections: daemon.metric("mqtt_connections_total") == expected)
    until = time.monotonic() + 2
    while time.monotonic() < until:
        assert daemon.metric("messages_in_flight") == 100
        time.sleep(0.2)
    kafka.resume()
    assert set(values(kafka, daemon, 300)) == {value for _, value in numbered(300)}
    eventually(lambda: daemon.metric("messages_in_flight") == 0)
    assert daemon.stop() == 0


def test_a_lost_session_is_told(broker: Broker, daemon: Daemon) -> None:
    daemon.start()
    broker.stop()
    for file in (broker.config.parent / "mosquitto").iterdir():
        file.unlink()
    broker.start()
    eventually(lambda: daemon.metric("mqtt_sessions_lost_total") == 1)


def test_qos_0_is_refused(kafka: OwnKafka, daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "qos0").mkdir()
    port = free_ports(1)[0]
    broker = Broker(tmp_path / "qos0", port, f"listener {port} 127.0.0.1", "max_qos 0", "allow_anonymous true")
    try:
        broker.start()
        daemon.environment["IOT_MQTT_URL"] = broker.url
        daemon.start(ready=False)
        assert daemon.process is not None
        assert daemon.process.wait(20) == 3
        assert "IOT_MQTT_URL" in daemon.log.read_text()
    finally:
        broker.stop()


def test_tls_and_password(kafka: OwnKafka, daemon: Daemon, tmp_path: Path) -> None:
    folder = tmp_path / "tls"
    folder.mkdir()
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj",
         "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", f"{folder}/key.pem", "-out", f"{folder}/cert.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    subprocess.run(["mosquitto_passwd", "-b", "-c", str(folder / "passwords"), "us er", "p@ss/w"], check=True, capture_output=True)
    plain, tls = free_ports(2)
    broker = Broker(
        folder, plain, "per_listener_settings true", f"listener {plain} 127.0.0.1", "allow_anonymous true", f"listener {tls} 127.0.0.1",
        f"cafile {folder}/cert.pem", f"certfile {folder}/cert.pem", f"keyfile {folder}/key.pem", "allow_anonymous false",
        f"password_file {folder}/passwords",
    )  # fmt: skip
    try:
        broker.start()
        daemon.environment["IOT_MQTT_URL"] = f"mqtts://localhost:{tls}"
        daemon.start(ready=False)
        eventually(lambda: "certificate verify failed" in daemon.probe("readyz")[1])
        daemon.kill()
        daemon.environment["IOT_MQTT_TLS_CA_FILE"] = str(folder / "cert.pem")
        daemon.start(ready=False)
        eventually(lambda: "refuses the connection" in daemon.probe("readyz")[1])
        daemon.kill()
        daemon.environment["IOT_MQTT_URL"] = f"mqtts://us%20er:p%40ss%2Fw@localhost:{tls}"
        daemon.start()
        messages = [(f"f/{number}", b"x" * number * 40) for number in range(2000)]
        publish(broker.url, messages)
        assert len(values(kafka, daemon, 2000)) == 2000
        assert daemon.stop() == 0
        assert "p@ss" not in daemon.log.read_text()
    finally:
        broker.stop()
