"""A TLS handshake of our own with Kafka's brokers, for what librdkafka keeps to itself: what they show, and what is wrong with it."""

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from ingest_daemon.server_settings import ServerSettings

ANSWER_SECONDS = 4.0


@contextmanager
def handshake(address: str, context: ssl.SSLContext) -> Iterator[ssl.SSLSocket]:
    """Connected to one of IOT_KAFKA_BOOTSTRAP_SERVERS for the length of the block. Blocks for seconds. Raises OSError, ValueError."""
    parts = urlsplit(f"//{address.strip().rpartition('://')[2]}")
    with (
        socket.create_connection((parts.hostname or "", parts.port or 9092), ANSWER_SECONDS) as plain,
        context.wrap_socket(plain, server_hostname=parts.hostname) as secured,
    ):
        yield secured


def verify_message(settings: ServerSettings) -> str:
    """What is wrong with the first broker's certificate, as OpenSSL names it; empty when nothing is, or it is unknown."""
    try:
        with handshake(settings.kafka_bootstrap_servers.split(",")[0], ssl.create_default_context(cafile=settings.kafka_ssl_ca_file)):
            return ""
    except ssl.SSLCertVerificationError as error:
        return error.verify_message
    except (OSError, ValueError):
        return ""
