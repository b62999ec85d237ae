"""Brokers from Debian's releases: RabbitMQ, ejabberd, a newer Mosquitto. The machine's own release does not matter, its rights do."""

from pathlib import Path
from typing import ClassVar

from iot_platform.local.install import Note
from iot_platform.local.ports import LOOPBACK
from iot_platform_tests.support.brokers import debian
from iot_platform_tests.support.brokers.server import BrokerServer

_RABBITMQ = """listeners.tcp = none
mqtt.listeners.tcp.1 = {host}:{port}
{lines}
"""
# epmd must run before a node starts, and ends with the node's process group.
_RABBITMQ_START = "epmd -address 127.0.0.1 & exec /usr/lib/rabbitmq/bin/rabbitmq-server"
_EJABBERD = """hosts: [localhost]
loglevel: warning
certfiles: []
listen:
  - {{ port: {port}, ip: "{host}", module: mod_mqtt, backlog: 1000 }}
acl: {{ local: {{ user_regexp: "" }} }}
auth_method: anonymous
allow_multiple_connections: true
anonymous_protocol: both
modules:
  mod_mqtt:
    max_queue: 1000000
    session_expiry: 14 days
    access_publish: {{ "#": [{{ allow: all }}] }}
    access_subscribe: {{ "#": [{{ allow: all }}] }}
"""
_MOSQUITTO = """listener {port} {host}
allow_anonymous true
user root
persistence true
persistence_location /srv/
autosave_interval 10
max_queued_messages 1000000
max_inflight_messages 10000
log_dest stdout
log_type error
log_type warning
"""


class _Debian(BrokerServer):
    RELEASE: ClassVar[str]
    PACKAGES: ClassVar[tuple[str, ...]]
    USER: ClassVar[str] = "root"

    @property
    def root(self) -> Path:
        """The root file system that has it."""
        return self.cache_dir / f"{self.NAME}-{self.RELEASE}"

    def install(self, note: Note) -> Path:
        """See BrokerServer."""
        debian.require_root()
        return debian.install(self.RELEASE, self.PACKAGES, self.root, self.install_log, note, user=self.USER)

    def _inside(self, *command: str) -> tuple[str, ...]:
        return debian.inside(self.root, self.data, *command)


class _RabbitMq(_Debian):
    PACKAGES = ("rabbitmq-server",)
    SHARED = False
    LINES: ClassVar[str]

    def configure(self) -> None:
        """See BrokerServer."""
        (self.data / "rabbitmq.conf").write_text(_RABBITMQ.format(host=LOOPBACK, port=self.port, lines=self.LINES), "utf-8")
        (self.data / "enabled_plugins").write_text("[rabbitmq_mqtt].\n", "ascii")

    def command(self) -> tuple[str, ...]:
        """See BrokerServer."""
        return self._inside("sh", "-c", _RABBITMQ_START)

    def environment(self) -> dict[str, str]:
        """See BrokerServer."""
        return {
            "PATH": "/usr/sbin:/usr/bin",
            "HOME": "/srv",
            "LC_ALL": "C.UTF-8",
            "ERL_EPMD_PORT": str(self.port + 2),
            "RABBITMQ_NODENAME": f"broker{self.port}@localhost",
            "RABBITMQ_MNESIA_BASE": "/srv/mnesia",
            "RABBITMQ_LOG_BASE": "/srv/log",
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_CONFIG_FILE": "/srv/rabbitmq.conf",
            "RABBITMQ_ENABLED_PLUGINS_FILE": "/srv/enabled_plugins",
            "RABBITMQ_PID_FILE": "/srv/pid",
            "RABBITMQ_DIST_PORT": str(self.port + 1),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        }


class RabbitMq3(_RabbitMq):
    """RabbitMQ of Debian 12."""

    NAME, VERSION, SOURCE, RELEASE = "rabbitmq-3", "3.10.8", "Debian 12", "bookworm"
    PROTOCOLS = ("3.1.1",)
    LEAVES_DOUBT = frozenset({"held", "restart", "broker_kill"})  # new ids, and too few in flight to show that
    LINES = "mqtt.subscription_ttl = 1209600000"


class RabbitMq4(_RabbitMq):
    """RabbitMQ of Debian's next release."""

    NAME, VERSION, SOURCE, RELEASE = "rabbitmq-4", "4.3.6", "Debian testing", "forky"
    PROTOCOLS = ("5", "3.1.1")
    LINES = "mqtt.max_session_expiry_interval_seconds = 1209600"


class Ejabberd(_Debian):
    """ejabberd with mod_mqtt; its sessions are in memory."""

    NAME, VERSION, SOURCE, RELEASE = "ejabberd", "26.07", "Debian testing", "forky"
    PACKAGES = ("ejabberd",)
    USER = "ejabberd"  # it refuses any other
    PROTOCOLS = ("5", "3.1.1")
    SHARED = False
    LOSES = frozenset({"restart", "broker_kill"})  # sessions are in memory

    def configure(self) -> None:
        """See BrokerServer."""
        (self.data / "spool").mkdir(exist_ok=True)
        (self.data / "ejabberd.yml").write_text(_EJABBERD.format(host=LOOPBACK, port=self.port), "utf-8")

    def command(self) -> tuple[str, ...]:
        """See BrokerServer."""
        return self._inside("/usr/sbin/ejabberdctl", "--config-dir", "/srv", "--logs", "/srv", "--spool", "/srv/spool", "foreground")

    def environment(self) -> dict[str, str]:
        """See BrokerServer."""
        return {
            "PATH": "/usr/sbin:/usr/bin",
            "HOME": "/srv",
            "LC_ALL": "C.UTF-8",
            "ERL_DIST_PORT": str(self.port + 1),
            "INET_DIST_INTERFACE": LOOPBACK,
            "ERLANG_NODE": f"broker{self.port}@localhost",
        }


class Mosquitto21(_Debian):
    """Mosquitto of Debian's next release."""

    NAME, VERSION, SOURCE, RELEASE = "mosquitto-2.1", "2.1.2", "Debian testing", "forky"
    PACKAGES = ("mosquitto",)
    PROTOCOLS = ("5", "3.1.1")
    LOSES = frozenset({"broker_kill"})  # what it took since the last save

    def configure(self) -> None:
        """See BrokerServer."""
        (self.data / "mosquitto.conf").write_text(_MOSQUITTO.format(host=LOOPBACK, port=self.port), "utf-8")

    def command(self) -> tuple[str, ...]:
        """See BrokerServer."""
        return self._inside("/usr/sbin/mosquitto", "-c", "/srv/mosquitto.conf")
