"""The local Kafka: KRaft nodes, each broker and controller in one process, from Maven's jars or an installation of the user's."""

import os
import re
import subprocess
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from iot_platform.files import DEPLOY
from iot_platform.local import probes
from iot_platform.local.errors import LocalStackError
from iot_platform.local.install import NETWORK, Note, cached, run_logged, which
from iot_platform.local.ports import LOOPBACK, free_ports, is_free
from iot_platform.local.program import Program, base_environment
from iot_platform.settings import Settings

_DEPLOY = DEPLOY / "local"
_MINIMUM_JAVA = 17
_JAVA_TOO_OLD = f"Kafka needs Java >= {_MINIMUM_JAVA}"


@dataclass(frozen=True)
class Quorum:
    """What the nodes of one cluster have in common: the port of each one's controller, node 1 first, and the id that all disks carry."""

    controller_ports: tuple[int, ...]
    cluster_id: str


@dataclass(frozen=True)
class KafkaServer:
    """A Kafka node on the loopback interface, topics only by our own hand: a cluster of its own with replication factor 1, or one of a
    `quorum`, in which it is number `node_id`."""

    local_dir: Path
    cache_dir: Path
    port: int
    settings: Settings
    heap: str = "512m"
    name: str = "kafka"
    proxied: tuple[tuple[int, int], ...] = ()
    """Further listeners for clients that come through a proxy, which must hear the proxy's address: (port, the proxy's port)."""
    node_id: int = 1
    quorum: Quorum | None = None
    host: str = LOOPBACK
    """An address of 127.0.0.0/8."""
    properties: tuple[str, ...] = ()
    """Further lines of its configuration."""
    java_options: tuple[str, ...] = ()
    """Further options of the server's Java, not of its tools'."""
    version: str = ""
    """Another release than that of deploy/local/kafka-pom.xml; not where KAFKA_HOME names one."""

    @property
    def log_dir(self) -> Path:
        """Where its output goes."""
        return self.local_dir / "logs"

    @property
    def bootstrap_servers(self) -> str:
        """Value for IOT_KAFKA_BOOTSTRAP_SERVERS."""
        return f"{self.host}:{self.port}"

    def missing_packages(self) -> dict[str, str]:
        """See Server."""
        missing = {}
        if java_command() is None:
            missing["default-jre-headless"] = f"{_JAVA_TOO_OLD}; or set JAVA_HOME"
        if not os.environ.get("KAFKA_HOME") and not self._jars.exists() and which("mvn") is None:
            missing["maven"] = "fetches Kafka; or set KAFKA_HOME to an installed Kafka"
        return missing

    def prepare(self, note: Note) -> None:
        """See Server."""
        self.fetch(note)
        self._data.mkdir(parents=True, exist_ok=True)
        self._config_file.write_text(self._config(), "utf-8")
        if not (self._data / "meta.properties").exists():
            note("formatting its storage")
            cluster = self.quorum.cluster_id if self.quorum else new_cluster_id()
            tool = self.java("kafka.tools.StorageTool", "format", f"--cluster-id={cluster}", "-c", str(self._config_file))
            run_logged(tool, self.log_dir / "install.log", note, what="formatting Kafka's storage")
            _sync(self._data)
        self.recover_whole_logs()

    def recover_whole_logs(self) -> None:
        """Have Kafka look through all segments at its next start, if it was not shut down cleanly. By its own checkpoint it skips what it
        recovered once before, although the time indexes that it rebuilt then may not be on the disk: after a second power cut they hold
        zeros, and retention deletes these segments as older than anything, drained or not (Kafka 4.3.1)."""
        if not (self._data / ".kafka_cleanshutdown").exists():
            (self._data / "recovery-point-offset-checkpoint").unlink(missing_ok=True)

    def program(self) -> Program:
        """See Server."""
        return Program(
            name=self.name,
            command=self.java("kafka.Kafka", str(self._config_file), options=self.java_options),
            directory=self.local_dir,
            environment=base_environment(self.local_dir),
            stop_seconds=30,
            fingerprint=self._config_file.read_text("utf-8"),
        )

    def check(self) -> None:
        """See Server."""
        probes.kafka(self.local_settings)

    def provision(self, note: Note) -> None:
        """See Server: the platform's topics. Those of an earlier version get the settings that they lack. A quorum's owner makes them
        instead, once enough nodes are there."""
        from iot_platform.kafka.topics import ensure_topics

        if self.quorum is not None:
            return
        note("creating topics")
        for text in ensure_topics(self.local_settings, own=True):
            note(text)

    @property
    def local_settings(self) -> Settings:
        """The given settings, pointed at this server (plaintext, no credentials)."""
        return self.settings.model_copy(
            update={"kafka_bootstrap_servers": self.bootstrap_servers, "kafka_security_protocol": "PLAINTEXT", "kafka_sasl_mechanism": None}
        )

    def fetch(self, note: Note) -> None:
        """Download Kafka, unless that is done or KAFKA_HOME names one.

        Raises:
            LocalStackError: it can't be had, or KAFKA_HOME holds none.
        """
        if home := os.environ.get("KAFKA_HOME"):
            if not list((Path(home) / "libs").glob("kafka_2*.jar")):
                raise LocalStackError(
                    f"KAFKA_HOME={home} holds no Kafka (libs/kafka_2*.jar): correct it, or unset it to have Kafka downloaded"
                )
            return
        if self._jars.exists():
            return
        with cached(self._jars, note) as folder:
            if folder is None:
                return
            note("downloading Kafka (54 MB of jars)")
            maven = which("mvn")
            if maven is None:
                raise LocalStackError("Maven is not installed. Run as root: apt-get install maven; or set KAFKA_HOME")
            command = [maven, "-B", "-f", str(_DEPLOY / "kafka-pom.xml"), "dependency:copy-dependencies", f"-DoutputDirectory={folder}"]
            if self.version:
                command.append(f"-Dkafka.version={self.version}")
            run_logged(command, self.log_dir / "install.log", note, what="downloading Kafka", hint=NETWORK)

    def libraries(self) -> Path:
        """Folder of Kafka's jars, which may not exist yet."""
        home = os.environ.get("KAFKA_HOME")
        return Path(home) / "libs" if home else self._jars

    def java(self, main_class: str, *arguments: str, options: Sequence[str] = ()) -> tuple[str, ...]:
        """The command that runs one of Kafka's programs.

        Raises:
            LocalStackError: no Java.
        """
        java = java_command()
        if java is None:
            raise LocalStackError(f"{_JAVA_TOO_OLD}. Run as root: apt-get install default-jre-headless; or set JAVA_HOME")
        return (
            java,
            f"-Xmx{self.heap}",
            "-XX:+ExitOnOutOfMemoryError",
            "-Djava.net.preferIPv4Stack=true",
            f"-Dlog4j2.configurationFile={_DEPLOY / 'kafka-log4j2.properties'}",
            *options,
            "-cp",
            f"{self.libraries()}/*",
            main_class,
            *arguments,
        )

    # -- private ---------------------------------------------------------------------------------------------
    @property
    def _data(self) -> Path:
        return self.local_dir / "data" / self.name

    @property
    def _config_file(self) -> Path:
        return self.local_dir / "run" / f"{self.name}.properties"

    @property
    def _jars(self) -> Path:
        return self.cache_dir / f"kafka-{self.version or pinned_version()}"

    def _config(self) -> str:
        controllers = self.quorum.controller_ports if self.quorum else (self._controller_port(),)
        voters = ",".join(f"{number}@{self.host}:{port}" for number, port in enumerate(controllers, 1))
        controller = controllers[self.node_id - 1]
        replicas = min(3, len(controllers))
        in_sync = max(1, replicas - 1)
        names = [f"PROXIED{number}" for number in range(len(self.proxied))]
        listeners = "".join(f",{name}://{LOOPBACK}:{port}" for name, (port, _) in zip(names, self.proxied, strict=True))
        advertised = "".join(f",{name}://{LOOPBACK}:{port}" for name, (_, port) in zip(names, self.proxied, strict=True))
        protocols = "".join(f",{name}:PLAINTEXT" for name in names)
        return f"""# written by `iot up`
process.roles=broker,controller
node.id={self.node_id}
controller.quorum.voters={voters}
listeners=PLAINTEXT://{self.host}:{self.port}{listeners},CONTROLLER://{self.host}:{controller}
advertised.listeners=PLAINTEXT://{self.host}:{self.port}{advertised}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT{protocols}
controller.listener.names=CONTROLLER
log.dirs={self._data}
offsets.topic.replication.factor={replicas}
offsets.topic.num.partitions=5
transaction.state.log.replication.factor={replicas}
transaction.state.log.min.isr={in_sync}
transaction.state.log.num.partitions=2
share.coordinator.state.topic.replication.factor={replicas}
share.coordinator.state.topic.min.isr={in_sync}
auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0
""" + "".join(f"{line}\n" for line in self.properties)

    def _controller_port(self) -> int:
        """The port that the quorum has used so far, else the next one, else any. Only Kafka itself uses this port."""
        if self._config_file.exists():
            known = re.search(rf"^controller.quorum.voters=1@{LOOPBACK}:(\d+)", self._config_file.read_text("utf-8"), re.MULTILINE)
            if known and (not is_free(self.port) or is_free(int(known[1]))):  # serving already, or free to serve again
                return int(known[1])
        return self.port + 1 if self.port < 65535 and is_free(self.port + 1) else free_ports(1)[0]


def pinned_version() -> str:
    """Kafka's release in the local stack."""
    version = re.search(r"<kafka.version>([^<]+)", (_DEPLOY / "kafka-pom.xml").read_text("utf-8"))
    return version[1] if version else "unknown"


def new_cluster_id() -> str:
    """A random one, as `kafka-storage.sh random-uuid` makes them."""
    return urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")


def java_command() -> str | None:
    """A Java runtime that can run Kafka: JAVA_HOME's, else the one on the PATH; None without one."""
    home = os.environ.get("JAVA_HOME")
    command = str(Path(home) / "bin" / "java") if home else which("java")
    if command is None or not Path(command).exists():
        return None
    shown = subprocess.run([command, "-version"], check=False, capture_output=True, text=True)
    version = re.search(r'version "(\d+)', shown.stderr + shown.stdout)
    return command if version and int(version[1]) >= _MINIMUM_JAVA else None


def _sync(folder: Path) -> None:
    """On the disk for good, which formatting leaves to the kernel: without bootstrap.checkpoint Kafka would not start after a power cut."""
    for path in (*folder.iterdir(), folder, folder.parent):
        opened = os.open(path, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
