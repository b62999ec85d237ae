"""Brokers built with Go: the server of NATS, and a program around the library mochi-mqtt."""

from pathlib import Path

from iot_platform.local.install import Note
from iot_platform.local.ports import LOOPBACK
from iot_platform_tests.support.brokers import packages
from iot_platform_tests.support.brokers.server import FOLDER, BrokerServer

_NATS = """listen: "{host}:{client_port}"
server_name: "test"
jetstream: {{ store_dir: "{data}/jetstream" }}
mqtt: {{ host: "{host}", port: {port}, max_ack_pending: 20000 }}
"""


class Nats(BrokerServer):
    """NATS with JetStream."""

    NAME, VERSION, SOURCE = "nats", "2.15.2", "Go"
    PROTOCOLS = ("3.1.1",)
    LEAVES_DOUBT = frozenset({"restart", "broker_kill"})  # what was acknowledged comes again half a minute later
    PAUSE_SECONDS = PATIENCE_SECONDS = 35.0  # what was not acknowledged comes again after 30

    def install(self, note: Note) -> Path:
        """See BrokerServer."""
        return packages.go(FOLDER / "nats", "github.com/nats-io/nats-server/v2", self._cached(), self.install_log, note)

    def configure(self) -> None:
        """See BrokerServer."""
        text = _NATS.format(host=LOOPBACK, client_port=self.port + 1, data=self.data, port=self.port)
        (self.data / "nats.conf").write_text(text, "utf-8")

    def command(self) -> tuple[str, ...]:
        """See BrokerServer."""
        return (str(self._cached() / "broker"), "-c", str(self.data / "nats.conf"))


class Mochi(BrokerServer):
    """mochi-mqtt, its sessions in bbolt."""

    NAME, VERSION, SOURCE = "mochi", "2.7.9", "Go"
    PROTOCOLS = ("5", "3.1.1")
    LOSES = frozenset({"kill", "restart", "broker_kill"})  # a session that was resumed may stand still or be refused

    def install(self, note: Note) -> Path:
        """See BrokerServer."""
        return packages.go(FOLDER / "mochi", ".", self._cached(), self.install_log, note)

    def command(self) -> tuple[str, ...]:
        """See BrokerServer."""
        return (str(self._cached() / "broker"), str(self.port), str(self.data / "sessions.bolt"))
