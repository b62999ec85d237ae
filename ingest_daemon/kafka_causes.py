"""What an error of Kafka's client means here: the cause as a sentence, with the setting to correct or the command that grants the right."""

import time
from collections.abc import Callable
from typing import Any

from confluent_kafka import KafkaError

from ingest_daemon.settings import Settings

# librdkafka tries again every two seconds at the latest and reports each failure: a cause that is not repeated has gone.
FRESH_SECONDS = 10.0

_TOPIC_AWAY = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION})
_NO_RIGHT = frozenset({KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED})
_NOT_AUTHENTICATED = frozenset({KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED})


def cause(error: Any, settings: Settings) -> str:
    """One line: what is wrong, and in brackets the setting to look at."""
    code, text = error.code(), error.str()
    if code in _NO_RIGHT:
        return _missing_right(code, settings)
    if code in _TOPIC_AWAY:
        return f"{text} (IOT_KAFKA_TOPIC: does {settings.kafka_topic} exist?)"
    if code in (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE):
        return f"{text}: all of a batch was refused and is sent again in smaller ones (IOT_KAFKA_TOPIC: its max.message.bytes)"
    if code in (KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT):
        return "the producer was replaced before Kafka had confirmed everything; that is sent again"
    if code == KafkaError.INVALID_TIMESTAMP:
        return f"{text} (IOT_KAFKA_TOPIC: set message.timestamp.type=LogAppendTime on it, or correct this host's clock)"
    return _connection(error, settings) or f"{text} (IOT_KAFKA_BOOTSTRAP_SERVERS)"


def _missing_right(code: int, settings: Settings) -> str:
    user, setting = _user(settings)
    topics = settings.kafka_topic, settings.kafka_dead_letter_topic
    missing = f"the right to WRITE to topic {' and '.join(topics)}"
    if code == KafkaError.CLUSTER_AUTHORIZATION_FAILED:
        missing += ", which includes IDEMPOTENT_WRITE on the cluster"
    remedy = (
        f"kafka-acls --bootstrap-server {settings.kafka_bootstrap_servers} --add --allow-principal 'User:{user}' "
        f"--operation Write --operation Describe {' '.join(f'--topic {topic}' for topic in topics)}"
    )
    return f"the Kafka user '{user}' lacks {missing} ({setting}); grant it as an administrator: {remedy}"


def _user(settings: Settings) -> tuple[str, str]:
    """Who we are to Kafka, and the setting that says so."""
    if settings.kafka_security_protocol.startswith("SASL"):
        return settings.kafka_sasl_username or "", "IOT_KAFKA_SASL_USERNAME"
    if settings.kafka_ssl_cert_file:
        return f"<subject of {settings.kafka_ssl_cert_file}>", "IOT_KAFKA_SSL_CERT_FILE"
    return "ANONYMOUS", "IOT_KAFKA_SECURITY_PROTOCOL"


def _connection(error: Any, settings: Settings) -> str | None:
    """Why a broker and we don't accept each other; None if the error says nothing about that."""
    code, text = error.code(), _without_time(error.str())
    if code in _NOT_AUTHENTICATED:
        password = "IOT_KAFKA_SASL_PASSWORD_FILE" if settings.kafka_sasl_password_file else "IOT_KAFKA_SASL_PASSWORD"
        setting = "IOT_KAFKA_SASL_MECHANISM" if "mechanism handshake" in text else f"IOT_KAFKA_SASL_USERNAME, {password}"
        return f"Kafka does not accept user '{settings.kafka_sasl_username}': {text} ({setting})"
    if "certificate verify failed" in text:
        broker = text.partition(": ")[0]  # the rest names librdkafka's settings
        return f"the certificate of {broker} is not trusted: signed by another CA, ended, or for another host name (IOT_KAFKA_SSL_CA_FILE)"
    if "ssl/tls alert" in text:  # TLS 1.3 tells a client after its handshake, which librdkafka calls a _TRANSPORT error
        return f"the broker does not take our certificate: ended, signed by another CA, or none: {text} ({_CERTIFICATE})"
    if code == KafkaError._SSL or "PLAINTEXT broker listener" in text:
        return f"{text} (IOT_KAFKA_SECURITY_PROTOCOL, IOT_KAFKA_SSL_*)"
    return None


def _without_time(text: str) -> str:
    """librdkafka's text without how long the attempt took: the same cause is the same text."""
    before, _, after = text.partition(" (after ")
    return before + after.partition(")")[2]


_CERTIFICATE = "IOT_KAFKA_SSL_CERT_FILE, IOT_KAFKA_SSL_KEY_FILE"


class ConnectionCause:
    """Remembers, from `error_cb`, why brokers refuse us: with delivery.timeout.ms=0 no message ever says so. One thread notes, any asks."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._noted: tuple[float, str] | None = None

    def note(self, error: Any) -> str | None:
        """The cause, if this error tells one that was not known."""
        found = _connection(error, self._settings)
        if found is None:
            return None
        known = self.text
        self._noted = (self._clock(), found)
        return None if found == known else found

    @property
    def text(self) -> str | None:
        """The cause; None when there is none, or no longer."""
        noted = self._noted
        return noted[1] if noted is not None and self._clock() - noted[0] < FRESH_SECONDS else None

    def forget(self) -> None:
        """A connection was accepted."""
        self._noted = None
