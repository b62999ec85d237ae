"""What the brokers have in common: installed from packages into the cache, run under the supervisor with data of their own."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from iot_platform.local.errors import NotReadyError
from iot_platform.local.install import Note
from iot_platform.local.ports import LOOPBACK
from iot_platform.local.program import Program, base_environment

FOLDER = Path(__file__).parent
Protocol = Literal["5", "3.1.1"]
PAHO: dict[Protocol, MQTTProtocolVersion] = {"5": MQTTProtocolVersion.MQTTv5, "3.1.1": MQTTProtocolVersion.MQTTv311}
_CONNACK_SECONDS = 5


@dataclass(frozen=True)
class BrokerServer:
    """A broker on the loopback interface, anonymous, with sessions and queues on disk as far as it can. Its `port` speaks MQTT, the next
    two are its own."""

    NAME: ClassVar[str]
    VERSION: ClassVar[str]
    SOURCE: ClassVar[str]
    """Where it comes from, for people."""
    PROTOCOLS: ClassVar[tuple[Protocol, ...]]
    STOP_SECONDS: ClassVar[int] = 30
    PAUSE_SECONDS: ClassVar[float] = 1.5
    """So long after the last PUBLISH nothing comes again."""
    PATIENCE_SECONDS: ClassVar[float] = 10.0
    """So long after the last PUBLISH nothing comes any more, not even what is missing."""

    SHARED: ClassVar[bool] = True
    """Whether it has shared subscriptions."""
    LOSES: ClassVar[frozenset[str]] = frozenset()
    """Scenarios in which it loses what it has acknowledged to the publisher."""
    LEAVES_DOUBT: ClassVar[frozenset[str]] = frozenset()
    """Scenarios in which a daemon that meets it for the first time may take second copies for new messages (docs/guarantees.md)."""

    local_dir: Path
    cache_dir: Path
    port: int

    @property
    def name(self) -> str:
        """See Server."""
        return self.NAME

    @property
    def url(self) -> str:
        """Value for IOT_MQTT_URL."""
        return f"mqtt://{LOOPBACK}:{self.port}"

    @property
    def data(self) -> Path:
        """Where its sessions and queues are kept."""
        return self.local_dir / "data" / self.NAME

    @property
    def install_log(self) -> Path:
        """Output of package managers."""
        return self.local_dir / "logs" / "install.log"

    def missing_packages(self) -> dict[str, str]:
        """See Server. LocalStackError when this machine can't run the broker."""
        return {}

    def prepare(self, note: Note) -> None:
        """See Server."""
        self.data.mkdir(parents=True, exist_ok=True)
        self.install(note)
        self.configure()

    def install(self, note: Note) -> Path:
        """Fetch it into the cache, once; returns its folder there."""
        raise NotImplementedError

    def configure(self) -> None:
        """Write its settings, if it has any, below `data`."""

    def command(self) -> tuple[str, ...]:
        """Of the process that listens."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """Further variables of its process."""
        return {}

    def program(self) -> Program:
        """See Server. What a test kills stays down until `Supervisor.apply`."""
        environment = base_environment(self.local_dir) | self.environment()
        return Program(self.NAME, self.command(), self.data, environment, stop_seconds=self.STOP_SECONDS, restart=False)

    def check(self) -> None:
        """See Server: it answers CONNECT."""
        connack(self.port, self.PROTOCOLS[0])

    def provision(self, note: Note) -> None:
        """See Server: a broker needs nothing."""

    def _cached(self, *parts: str) -> Path:
        return self.cache_dir / "-".join((self.NAME, self.VERSION, *parts))


def connack(port: int, protocol: Protocol) -> None:
    """Raise NotReadyError unless a broker accepts a connection."""
    answers: list[Any] = []
    client = Client(CallbackAPIVersion.VERSION2, "probe", protocol=PAHO[protocol])
    client.on_connect = lambda _client, _data, _flags, reason, _properties: answers.append(reason)
    client.connect_timeout = _CONNACK_SECONDS
    try:
        client.connect(LOOPBACK, port, keepalive=10)
        deadline = time.monotonic() + _CONNACK_SECONDS
        while not answers and time.monotonic() < deadline and client.loop(0.1) == 0:
            pass
        client.disconnect()
    except (OSError, ValueError) as error:
        raise NotReadyError(f"no connection to port {port}: {error}") from error
    if not answers or answers[0].is_failure:
        raise NotReadyError(f"port {port} answers CONNECT with {answers[0] if answers else 'nothing'}")
