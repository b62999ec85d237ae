"""Brokers from Maven: Artemis and HiveMQ in their embedded form, Moquette."""

from pathlib import Path

from iot_platform.local.install import Note, which
from iot_platform.local.ports import LOOPBACK
from iot_platform_tests.support.brokers import packages
from iot_platform_tests.support.brokers.server import FOLDER, BrokerServer

_QUIET = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"

_ARTEMIS = """<configuration xmlns="urn:activemq"><core xmlns="urn:activemq:core">
  <security-enabled>false</security-enabled>
  <journal-type>NIO</journal-type>
  <journal-pool-files>10</journal-pool-files>
  <journal-directory>{data}/journal</journal-directory>
  <bindings-directory>{data}/bindings</bindings-directory>
  <paging-directory>{data}/paging</paging-directory>
  <large-messages-directory>{data}/large</large-messages-directory>
  <max-disk-usage>100</max-disk-usage>
  <acceptors><acceptor name="mqtt">tcp://{host}:{port}?protocols=MQTT</acceptor></acceptors>
  <address-settings><address-setting match="#">
    <max-size-bytes>1G</max-size-bytes>
    <address-full-policy>PAGE</address-full-policy>
    <auto-create-addresses>true</auto-create-addresses>
    <auto-create-queues>true</auto-create-queues>
  </address-setting></address-settings>
</core></configuration>
"""
_HIVEMQ = """<hivemq>
  <listeners><tcp-listener><port>{port}</port><bind-address>{host}</bind-address></tcp-listener></listeners>
  <mqtt>
    <queued-messages><max-queue-size>{queue}</max-queue-size></queued-messages>
    <session-expiry><max-interval>4294967295</max-interval></session-expiry>
  </mqtt>
  <anonymous-usage-statistics><enabled>false</enabled></anonymous-usage-statistics>
</hivemq>
"""
_MOQUETTE = """host {host}
port {port}
allow_anonymous true
persistence_enabled true
data_path {data}
persistent_queue_type segmented
netty.mqtt.message_size 16777216
telemetry_enabled false
"""


class _Java(BrokerServer):
    def missing_packages(self) -> dict[str, str]:
        """See Server."""
        missing = {} if packages.compiler() else {"default-jdk-headless": f"runs {self.NAME}"}
        return missing if which("mvn") or self._cached().exists() else missing | {"maven": f"fetches {self.NAME}"}

    def install(self, note: Note) -> Path:
        """See BrokerServer."""
        return packages.maven(FOLDER / self.NAME / "pom.xml", self._cached(), self.install_log, note)

    def _java(self, *arguments: str) -> tuple[str, ...]:
        return (packages.java(), "-Xmx384m", "-Djava.net.preferIPv4Stack=true", _QUIET, "-cp", f"{self._cached()}/*", *arguments)


class Artemis(_Java):
    """Apache ActiveMQ Artemis."""

    NAME, VERSION, SOURCE = "artemis", "2.40.0", "Maven"
    PROTOCOLS = ("5", "3.1.1")
    LEAVES_DOUBT = frozenset({"restart", "broker_kill", "shared"})  # no DUP, new ids; another member gets them

    def configure(self) -> None:
        """See BrokerServer."""
        (self.data / "broker.xml").write_text(_ARTEMIS.format(data=self.data, host=LOOPBACK, port=self.port), "utf-8")

    def command(self) -> tuple[str, ...]:
        """See BrokerServer."""
        return self._java(str(FOLDER / "artemis/Artemis.java"), str(self.data / "broker.xml"))


class HiveMq(_Java):
    """HiveMQ Community Edition."""

    NAME, VERSION, SOURCE = "hivemq", "2025.5", "Maven"
    PROTOCOLS = ("5", "3.1.1")
    LEAVES_DOUBT = frozenset({"shared"})  # another member gets them
    QUEUE = 1_000_000

    def configure(self) -> None:
        """See BrokerServer."""
        for name in ("conf", "data", "extensions"):
            (self.data / name).mkdir(exist_ok=True)
        (self.data / "conf/config.xml").write_text(_HIVEMQ.format(host=LOOPBACK, port=self.port, queue=self.QUEUE), "utf-8")

    def command(self) -> tuple[str, ...]:
        """See BrokerServer."""
        return self._java(str(FOLDER / "hivemq/HiveMq.java"), str(self.data))


class Moquette(_Java):
    """Moquette."""

    NAME, VERSION, SOURCE = "moquette", "0.17", "Maven"
    LOSES = frozenset({"kill", "held", "restart", "broker_kill"})  # new messages take the place of those with their number; sessions
    PROTOCOLS = ("3.1.1",)
    PAUSE_SECONDS = 8.0  # what was not acknowledged comes again after 5.5

    def configure(self) -> None:
        """See BrokerServer."""
        for name in ("config", "store"):
            (self.data / name).mkdir(exist_ok=True)
        text = _MOQUETTE.format(host=LOOPBACK, port=self.port, data=self.data / "store")
        (self.data / "config/moquette.conf").write_text(text, "utf-8")

    def command(self) -> tuple[str, ...]:
        """See BrokerServer."""
        java, *options = self._java("io.moquette.broker.Server")
        return (java, f"-Dmoquette.path={self.data}", *options)
