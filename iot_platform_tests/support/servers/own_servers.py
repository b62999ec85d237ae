"""A Mosquitto and a Kafka that the ingest tests may stop, hang and kill, and the daemon between them."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from iot_platform.local import probes
from iot_platform.local.install import install_packages, which
from iot_platform.local.kafka import KafkaServer
from iot_platform.local.mosquitto import MosquittoServer
from iot_platform.local.ports import free_ports
from iot_platform.settings import Settings
from iot_platform_tests.support.servers.ingest import Daemon, create_topics
from iot_platform_tests.support.waiting import eventually

_Server = TypeVar("_Server", bound=KafkaServer)
_Running = TypeVar("_Running", bound="OwnKafka")


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
        install_packages(
            MosquittoServer(self.config.parent, self.port).missing_packages(), self.config.parent / "install.log", lambda _: None
        )
        command = which("mosquitto")
        assert command is not None
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
        self._log = (server.log_dir / "kafka.log").open("ab")
        self._server = server
        self.process = self._run()

    def _run(self) -> subprocess.Popen[bytes]:
        program = self._server.program()
        return subprocess.Popen(program.command, cwd=program.directory, env=dict(program.environment), stdout=self._log, stderr=self._log)

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait(20)

    def revive(self) -> None:
        """Go on after `pause` or `kill`, and wait until it serves."""
        if self.process.poll() is None:
            self.resume()
            return
        self.process = self._run()
        assert self.await_ready()

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
        create_topics(self.bootstrap_servers, *names)

    def pause(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        self.resume()
        self.process.kill()
        self.process.wait(20)
        self._log.close()


@pytest.fixture(scope="session")
def own_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnKafka]:
    """See OwnKafka; starts with the first test that asks for it."""
    folder, defaults = tmp_path_factory.mktemp("kafka"), Settings()
    yield from kafka_on_free_ports(lambda: KafkaServer(folder, defaults.cache_dir, free_ports(1)[0], defaults), OwnKafka)


def kafka_on_free_ports(make: Callable[[], _Server], run: Callable[[_Server], _Running]) -> Iterator[_Running]:
    """Run a Kafka until the generator is closed; once more on other ports where somebody takes one meanwhile."""
    for _ in range(3):
        server = make()
        for folder in (server.log_dir, server.local_dir / "run"):
            folder.mkdir(exist_ok=True)
        install_packages(server.missing_packages(), server.log_dir / "install.log", lambda _: None)
        server.prepare(lambda _: None)
        made = run(server)
        try:
            if made.await_ready():
                yield made
                return
        finally:
            made.close()
    pytest.fail(f"Kafka does not start: {server.local_dir}")


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[Broker]:
    made = Broker(tmp_path, free_ports(1)[0]).start()
    yield made
    made.stop()


@pytest.fixture
def own_daemon(own_broker: Broker, own_kafka: OwnKafka, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Daemon]:
    """Between the two, not started yet; its topics exist, and Kafka is resumed after the test."""
    name = request.node.name
    own_kafka.revive()
    own_kafka.create(name, f"{name}-dead")
    made = Daemon(
        tmp_path,
        mqtt_url=own_broker.url,
        mqtt_topic_filter="f/#",
        kafka_bootstrap_servers=own_kafka.bootstrap_servers,
        kafka_topic=name,
        kafka_dead_letter_topic=f"{name}-dead",
        ingest_keepalive_seconds=5,
        ingest_in_flight_window=100,
    )
    yield made
    made.close()
    own_kafka.revive()
