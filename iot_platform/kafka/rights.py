"""Rights (ACLs) that a Kafka user lacks, and the command that grants them."""

from dataclasses import dataclass
from typing import Final, Literal

from confluent_kafka import KafkaError

from iot_platform.settings import Settings

_REFUSALS: Final = frozenset(
    {KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED}
)


@dataclass(frozen=True)
class Right:
    """What an operation on a topic or group needs, as kafka-acls names it."""

    operations: tuple[str, ...]
    kind: Literal["topic", "group"]
    name: str


def reading(topic: str) -> Right:
    """What the drain needs on a topic."""
    return Right(("Read", "Describe"), "topic", topic)


def refused_right(settings: Settings, error: KafkaError, right: Right) -> str:
    """The sentence about a missing right, with the command that grants it; empty when the error is another one."""
    if error.code() not in _REFUSALS:
        return ""
    user = settings.kafka_sasl_username or ("of our certificate" if settings.kafka_ssl_cert_file else "ANONYMOUS")
    operations = ", ".join(operation.upper() for operation in right.operations)
    return f"user {user} may not {operations} the {right.kind} {right.name} ({error.str()}). Run: {acl_command(settings, right)}"


def acl_command(settings: Settings, right: Right) -> str:
    """What an administrator runs to grant it."""
    user = settings.kafka_sasl_username or "NAME"
    operations = " ".join(f"--operation {operation}" for operation in right.operations)
    return f"kafka-acls.sh {connection_options(settings)} --add --allow-principal User:{user} {operations} --{right.kind} {right.name}"


def connection_options(settings: Settings) -> str:
    """How Kafka's own commands reach it; credentials are in a file of the administrator's."""
    secured = "" if settings.kafka_security_protocol == "PLAINTEXT" else " --command-config admin.properties"
    return f"--bootstrap-server {settings.kafka_bootstrap_servers}{secured}"
