"""Brokers in scripting languages: Aedes (Node.js) and aMQTT (Python)."""

import sys
from pathlib import Path

from iot_platform.local.install import Note
from iot_platform.local.ports import LOOPBACK
from iot_platform_tests.support import npm
from iot_platform_tests.support.brokers import packages
from iot_platform_tests.support.brokers.server import FOLDER, BrokerServer

_AMQTT = """listeners:
  default: {{ type: tcp, bind: "{host}:{port}" }}
plugins:
  amqtt.plugins.authentication.AnonymousAuthPlugin: {{ allow_anonymous: true }}
"""


class Aedes(BrokerServer):
    """Aedes; it keeps nothing on disk."""

    NAME, VERSION, SOURCE = "aedes", "1.2.0", "npm"
    PROTOCOLS = ("3.1.1",)
    SHARED = False
    LOSES = frozenset({"restart", "broker_kill"})

    def missing_packages(self) -> dict[str, str]:
        """See Server."""
        return npm.missing(self._modules, "runs Aedes")

    def install(self, note: Note) -> Path:
        """See BrokerServer."""
        sources = [FOLDER / "aedes" / name for name in ("package.json", "package-lock.json")]
        return npm.installed(sources, self._modules, self.install_log, note)

    def command(self) -> tuple[str, ...]:
        """See BrokerServer."""
        modules = str(self._modules / "node_modules")
        return (packages.needs("node"), str(FOLDER / "aedes/broker.mjs"), modules, str(self.port))

    @property
    def _modules(self) -> Path:
        return self.cache_dir / f"aedes-{self.VERSION}"


class AedesLevel(Aedes):
    """Aedes with its queues in LevelDB (aedes-persistence-level 9.2.0); of a burst, some messages wait for the next connection."""

    NAME = "aedes-level"
    LOSES = frozenset({"basic", "kill", "held", "restart", "broker_kill", "kafka_away"})

    def command(self) -> tuple[str, ...]:
        """See BrokerServer."""
        return (*super().command(), str(self.data / "level"))


class Amqtt(BrokerServer):
    """aMQTT; it keeps nothing on disk."""

    NAME, VERSION, SOURCE = "amqtt", "0.12.1", "PyPI"
    PROTOCOLS = ("3.1.1",)
    LOSES = frozenset({"kill", "held", "restart", "broker_kill"})  # the session ends with the connection

    def install(self, note: Note) -> Path:
        """See BrokerServer."""
        return packages.pip(FOLDER / "amqtt/requirements.txt", self._cached(), self.install_log, note)

    def configure(self) -> None:
        """See BrokerServer."""
        (self.data / "broker.yaml").write_text(_AMQTT.format(host=LOOPBACK, port=self.port), "utf-8")

    def command(self) -> tuple[str, ...]:
        """See BrokerServer."""
        return (sys.executable, "-m", "amqtt.scripts.broker_script", "-c", str(self.data / "broker.yaml"))

    def environment(self) -> dict[str, str]:
        """See BrokerServer."""
        return {"PYTHONPATH": str(self._cached())}
