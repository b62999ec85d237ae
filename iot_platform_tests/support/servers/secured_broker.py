"""A Mosquitto with users for tests: mutual TLS, where the user is the CN of the client's certificate, passwords, and ACLs."""

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from iot_platform.local.install import which
from iot_platform.local.ports import free_ports
from iot_platform_tests.support.servers.certificates import Authority, Pair
from iot_platform_tests.support.servers.own_servers import Broker


class SecuredBroker(Broker):
    """Four listeners. `url`: no security, and may do everything: for the tests themselves. `mutual`: TLS with a client's certificate.
    `password_url`: without TLS, with a password, with the ACLs of `allow` or without. What changes here is in force for new connections.

    Mosquitto 2.0.11 with an ACL file drops what it should keep for a session whose client is away while it reloads its files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "broker-tls"
        self.authority = Authority(self.folder / "authority")
        self.authority.issue(self.folder, "broker")
        plain, self._tls_port, self._password_port, self._open_port = free_ports(4)
        self._passwords, self._acl = self.folder / "passwords", self.folder / "acl"
        self._passwords.touch()
        self._acl.touch()
        lines = f"""per_listener_settings true
listener {plain} 127.0.0.1
allow_anonymous true
listener {self._tls_port} 127.0.0.1
cafile {self.authority.ca_file}
certfile {self.folder}/broker.pem
keyfile {self.folder}/broker.key
require_certificate true
use_identity_as_username true
acl_file {self._acl}
listener {self._password_port} 127.0.0.1
allow_anonymous false
password_file {self._passwords}
acl_file {self._acl}
listener {self._open_port} 127.0.0.1
allow_anonymous false
password_file {self._passwords}"""
        super().__init__(folder, plain, *lines.splitlines())

    def mutual(self, pair: Pair) -> dict[str, Any]:
        """Settings of a client that shows a certificate (`authority.issue(folder, user)`)."""
        return {
            "mqtt_url": f"mqtts://127.0.0.1:{self._tls_port}",
            "mqtt_tls_ca_file": self.authority.ca_file,
            "mqtt_tls_cert_file": pair.cert_file,
            "mqtt_tls_key_file": pair.key_file,
        }

    def password_url(self, user: str, password: str | None = None, *, acl: bool = True) -> str:
        """Of a client that shows a password; without `acl` it may do everything."""
        shown = f"{user}:{password}" if password else user
        return f"mqtt://{shown}@127.0.0.1:{self._password_port if acl else self._open_port}"

    def set_password(self, user: str, password: str) -> None:
        """Make the user, or change the password. Mosquitto ends connections that showed another one."""
        command = which("mosquitto_passwd") or "mosquitto_passwd"
        subprocess.run([command, "-b", str(self._passwords), user, password], check=True, capture_output=True)
        self.reload()

    def allow(self, *lines: str) -> None:
        """The ACL file's content: `user NAME`, `topic read|write|readwrite FILTER`."""
        self._acl.write_text("\n".join(lines) + "\n")
        self.reload()

    def replace_server_certificate(self, *, seconds: float = 86_400) -> None:
        """New connections see it; the last one may have ended."""
        self.authority.issue(self.folder, "broker", seconds=seconds)
        self.reload()

    def reload(self) -> None:
        """Have the broker read its files again."""
        if self.process is not None:
            self.process.send_signal(signal.SIGHUP)


@pytest.fixture
def secured_broker(tmp_path: Path) -> Iterator[SecuredBroker]:
    """See SecuredBroker."""
    made = SecuredBroker(tmp_path)
    made.start()
    yield made
    made.stop()
