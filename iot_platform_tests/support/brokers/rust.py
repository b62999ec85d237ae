"""rumqttd, built with Cargo."""

from pathlib import Path

from iot_platform.local.install import Note
from iot_platform.local.ports import LOOPBACK
from iot_platform_tests.support.brokers import packages
from iot_platform_tests.support.brokers.server import BrokerServer

_CONFIG = """id = 0
[router]
id = 0
max_connections = 100
max_outgoing_packet_count = 200
max_segment_size = 104857600
max_segment_count = 10
[v5.1]
name = "v5"
listen = "{host}:{port}"
next_connection_delay_ms = 1
[v5.1.connections]
connection_timeout_ms = 60000
max_payload_size = 20480000
max_inflight_count = 100
dynamic_filters = true
[v4.1]
name = "v4"
listen = "{host}:{other}"
next_connection_delay_ms = 1
[v4.1.connections]
connection_timeout_ms = 60000
max_payload_size = 20480000
max_inflight_count = 100
dynamic_filters = true
"""


class Rumqttd(BrokerServer):
    """rumqttd; it keeps nothing on disk. `port` speaks MQTT 5, the next one 3.1.1."""

    NAME, VERSION, SOURCE = "rumqttd", "0.20.0", "Cargo"
    PROTOCOLS = ("5",)
    LEAVES_DOUBT = frozenset({"kill", "held", "shared"})  # no DUP, new ids, 100 in flight; another member gets them
    LOSES = frozenset({"restart", "broker_kill"})  # sessions are in memory

    def install(self, note: Note) -> Path:
        """See BrokerServer."""
        return packages.cargo("rumqttd", self.VERSION, self._cached(), self.install_log, note)

    def configure(self) -> None:
        """See BrokerServer."""
        (self.data / "rumqttd.toml").write_text(_CONFIG.format(host=LOOPBACK, port=self.port, other=self.port + 1), "utf-8")

    def command(self) -> tuple[str, ...]:
        """See BrokerServer."""
        return (str(self._cached() / "bin/rumqttd"), "-c", str(self.data / "rumqttd.toml"))
