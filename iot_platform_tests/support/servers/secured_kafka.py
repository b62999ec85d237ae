"""A Kafka with access control for tests: SASL/SCRAM over TLS, mutual TLS, and ACLs, without which nobody may do anything."""

import socket
import ssl
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialDeletion,
    UserScramCredentialUpsertion,
)

from iot_platform.local.kafka import KafkaServer
from iot_platform.local.ports import LOOPBACK, free_ports
from iot_platform.settings import Settings
from iot_platform_tests.support.servers.certificates import Authority, Pair
from iot_platform_tests.support.servers.own_servers import OwnKafka, kafka_on_free_ports
from iot_platform_tests.support.waiting import eventually

REAUTHENTICATE_SECONDS = 4
"""So long after a SCRAM connection was authenticated it has to be once more: a changed password shows."""


@dataclass(frozen=True)
class _SecuredServer(KafkaServer):
    sasl_port: int = 0
    mutual_port: int = 0

    def _config(self) -> str:
        more = f"SASL://{LOOPBACK}:{self.sasl_port},MUTUAL://{LOOPBACK}:{self.mutual_port},"
        lines = super()._config().splitlines()
        for number, line in enumerate(lines):
            name, _, value = line.partition("=")
            if name in ("listeners", "advertised.listeners"):
                lines[number] = f"{name}={more}{value}"
            elif name == "listener.security.protocol.map":
                lines[number] = f"{line},SASL:SASL_SSL,MUTUAL:SSL"
        folder = self.local_dir / "tls"
        return (
            "\n".join(lines)
            + f"""
inter.broker.listener.name=PLAINTEXT
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
allow.everyone.if.no.acl.found=false
sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.sasl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl.scram-sha-512.connections.max.reauth.ms={REAUTHENTICATE_SECONDS * 1000}
listener.name.sasl.ssl.keystore.type=PEM
listener.name.sasl.ssl.keystore.location={folder}/keystore.pem
listener.name.mutual.ssl.keystore.type=PEM
listener.name.mutual.ssl.keystore.location={folder}/keystore.pem
listener.name.mutual.ssl.truststore.type=PEM
listener.name.mutual.ssl.truststore.location={folder}/authority/ca.pem
listener.name.mutual.ssl.client.auth=required
listener.name.mutual.ssl.principal.mapping.rules=RULE:^CN=([^,]+).*$/$1/
"""
        )


class SecuredKafka(OwnKafka):
    """Kafka on three listeners. `bootstrap_servers`: no security, and may do everything: for the tests themselves.
    `sasl_servers`: SASL_SSL with SCRAM-SHA-512. `mutual_servers`: TLS, the user is the CN of the client's certificate.

    Users and topics are the test's own: take names that no other test uses. What changes here is in force on return.
    """

    def __init__(self, server: _SecuredServer, authority: Authority) -> None:
        self.folder = server.local_dir / "tls"
        self.authority = authority
        self.sasl_servers = f"{LOOPBACK}:{server.sasl_port}"
        self.mutual_servers = f"{LOOPBACK}:{server.mutual_port}"
        super().__init__(server)

    @property
    def ca_file(self) -> Path:
        """What its clients trust."""
        return self.authority.ca_file

    @cached_property
    def admin(self) -> AdminClient:
        """A client that may do everything."""
        return AdminClient({"bootstrap.servers": self.bootstrap_servers})

    def close(self) -> None:
        if "admin" in vars(self):
            with self.admin:
                pass
        super().close()

    # -- who connects: the fields kafka_* of both settings classes ---------------------------------------------
    def sasl(self, user: str, password: str) -> dict[str, Any]:
        """Settings of a client that shows a password."""
        return {
            "kafka_bootstrap_servers": self.sasl_servers,
            "kafka_security_protocol": "SASL_SSL",
            "kafka_sasl_mechanism": "SCRAM-SHA-512",
            "kafka_sasl_username": user,
            "kafka_sasl_password": password,
            "kafka_ssl_ca_file": self.ca_file,
        }

    def mutual(self, pair: Pair) -> dict[str, Any]:
        """Settings of a client that shows a certificate (`authority.issue(folder, user)`)."""
        return {
            "kafka_bootstrap_servers": self.mutual_servers,
            "kafka_security_protocol": "SSL",
            "kafka_ssl_ca_file": self.ca_file,
            "kafka_ssl_cert_file": pair.cert_file,
            "kafka_ssl_key_file": pair.key_file,
        }

    def set_password(self, user: str, password: str) -> None:
        """Make the user, or change the password: connections find out within REAUTHENTICATE_SECONDS."""
        scram = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        self._alter(UserScramCredentialUpsertion(user, scram, password.encode()))

    def remove_user(self, user: str) -> None:
        """No password is right any more."""
        self._alter(UserScramCredentialDeletion(user, ScramMechanism.SCRAM_SHA_512))

    def _alter(self, change: Any) -> None:
        _all(self.admin.alter_user_scram_credentials([change]))

    # -- what they may do --------------------------------------------------------------------------------------
    def grant(self, user: str, *operations: str, topic: str | None = None, group: str | None = None) -> None:
        """Allow operations (`WRITE`, `DESCRIBE`, `READ`, …) on a topic or group (`*`: on all), else on the cluster (`IDEMPOTENT_WRITE`)."""
        _all(self.admin.create_acls([self._acl(AclBinding, user, operation, topic, group) for operation in operations]))

    def revoke(self, user: str, *operations: str, topic: str | None = None, group: str | None = None) -> None:
        """Take back what `grant` gave with the same arguments."""
        _all(self.admin.delete_acls([self._acl(AclBindingFilter, user, operation, topic, group) for operation in operations]))

    @staticmethod
    def _acl(kind: Any, user: str, operation: str, topic: str | None, group: str | None) -> Any:
        resource, name = ResourceType.BROKER, "kafka-cluster"
        if topic or group:
            resource, name = (ResourceType.TOPIC, topic) if topic else (ResourceType.GROUP, group)
        pattern, permission = ResourcePatternType.LITERAL, AclPermissionType.ALLOW
        return kind(resource, name, pattern, f"User:{user}", "*", AclOperation[operation], permission)

    # -- certificates ------------------------------------------------------------------------------------------
    def replace_server_certificate(self, *, seconds: float = 86_400) -> None:
        """Put a new certificate into both TLS listeners while they run, the last one may have ended; new connections see it."""
        before = self._shown()
        write_keystore(self.authority, self.folder, seconds=seconds)
        resource = ConfigResource(ResourceType.BROKER, "1")
        for listener in ("sasl", "mutual"):
            name = f"listener.name.{listener}.ssl.keystore.location"
            resource.add_incremental_config(
                ConfigEntry(name, str(self.folder / "keystore.pem"), incremental_operation=AlterConfigOpType.SET)
            )
        _all(self.admin.incremental_alter_configs([resource]))
        eventually(lambda: before.isdisjoint(self._shown()), what="the broker keeps its certificate")

    def await_ended(self) -> None:
        """Until the listeners' certificate has ended."""
        context = ssl.create_default_context(cafile=str(self.ca_file))
        host, port = self.sasl_servers.split(":")

        def ended() -> bool:
            try:
                with socket.create_connection((host, int(port)), 5) as plain, context.wrap_socket(plain, server_hostname=host):
                    return False
            except ssl.SSLCertVerificationError as error:
                return "expired" in error.verify_message

        eventually(ended)

    def _shown(self) -> set[str]:
        """The certificates that the listeners show."""
        addresses = [servers.split(":") for servers in (self.sasl_servers, self.mutual_servers)]
        return {ssl.get_server_certificate((host, int(port))) for host, port in addresses}

    # -- topics ------------------------------------------------------------------------------------------------
    def create(self, *names: str, partitions: int = 2, **config: str) -> None:
        """Create topics; underscores in the names of settings stand for dots."""
        dotted = {name.replace("_", "."): value for name, value in config.items()}
        _all(self.admin.create_topics([NewTopic(name, partitions, 1, config=dotted) for name in names]))

    def delete(self, *names: str) -> None:
        """Delete topics."""
        _all(self.admin.delete_topics(list(names)))


def write_keystore(authority: Authority, folder: Path, *, seconds: float = 86_400) -> None:
    """The broker's certificate and key, always under the same distinguished name: the broker refuses another."""
    (folder / "keystore.pem").write_text(authority.issue(folder, "broker", seconds=seconds).keystore, "utf-8")


def _all(futures: dict[Any, Future[Any]]) -> None:
    for future in futures.values():
        future.result(30)


@pytest.fixture(scope="session")
def secured_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    """See SecuredKafka; starts with the first test that asks for it."""
    folder, defaults = tmp_path_factory.mktemp("secured-kafka"), Settings()
    (folder / "tls").mkdir()
    authority = Authority(folder / "tls" / "authority")
    write_keystore(authority, folder / "tls")

    def make() -> _SecuredServer:
        plain, sasl, mutual = free_ports(3)
        return _SecuredServer(folder, defaults.cache_dir, plain, defaults, sasl_port=sasl, mutual_port=mutual)

    yield from kafka_on_free_ports(make, lambda server: SecuredKafka(server, authority))
