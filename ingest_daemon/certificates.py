"""When certificates end: our own, the CAs that we trust, and those that the MQTT broker and Kafka show."""

import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from cryptography import x509

from ingest_daemon.kafka_tls import handshake
from ingest_daemon.settings import Settings

ASK_SECONDS = 600.0  # between two looks at what Kafka shows

Key = tuple[str, str]
"""Labels of the metric: server (mqtt, kafka), and whose certificate (server, client, ca)."""


class Certificates:
    """`ends` is as of the last `look`; any thread may ask. What can't be read or reached keeps its last value."""

    def __init__(self, settings: Settings, broker_shows: Callable[[], bytes | None], clock: Callable[[], float] = time.monotonic) -> None:
        """`broker_shows`: the MQTT broker's certificate as of the last connection, DER."""
        self._settings = settings
        self._broker_shows = broker_shows
        self._clock = clock
        self._ask_at = 0.0
        self._files: dict[Path, tuple[int, int, int]] = {}  # inode, time and size that were read
        self.ends: Mapping[Key, float] = {}
        """Unix time at which each ends."""

    def look(self) -> None:
        """Read files that have changed, and now and then ask Kafka. Blocks for a few seconds at most for each of Kafka's brokers."""
        found = dict(self.ends)
        s = self._settings
        for key, file, latest in (
            (("mqtt", "client"), s.mqtt_tls_cert_file, False),
            (("mqtt", "ca"), s.mqtt_tls_ca_file, True),
            (("kafka", "client"), s.kafka_ssl_cert_file, False),
            (("kafka", "ca"), s.kafka_ssl_ca_file, True),
        ):
            if file is not None and (end := self._end_of(file, latest=latest)) is not None:
                found[key] = end
        if (shown := self._broker_shows()) is not None:
            if (end := _end_of_shown(shown)) is not None:
                found["mqtt", "server"] = end
            else:
                found.pop(("mqtt", "server"), None)  # what it showed before is not in use any more
        if s.kafka_security_protocol.endswith("SSL") and self._clock() >= self._ask_at:
            self._ask_at = self._clock() + ASK_SECONDS
            ends = [end for address in s.kafka_bootstrap_servers.split(",") if (end := self._ask(address)) is not None]
            if ends:
                found["kafka", "server"] = min(ends)
        self.ends = found

    def _end_of(self, file: Path, *, latest: bool) -> float | None:
        """When the file's first certificate ends, which is ours, or its last one to end, beyond which no CA is left; None: as before."""
        try:
            status = file.stat()
            version = (status.st_ino, status.st_mtime_ns, status.st_size)
            if self._files.get(file) == version:
                return None
            ends = [_end(one) for one in x509.load_pem_x509_certificates(file.read_bytes())]
        except (OSError, ValueError):
            return None  # whoever uses it says so
        self._files[file] = version
        return max(ends) if latest else ends[0]

    def _ask(self, address: str) -> float | None:
        """When the certificate ends that one of Kafka's brokers shows; trusted or not, because an ended one is worth knowing."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        with suppress(OSError, ValueError):
            if self._settings.kafka_ssl_cert_file and self._settings.kafka_ssl_key_file:
                password = str(self._settings.ingest_kafka_options.get("ssl.key.password", ""))  # without one OpenSSL asks on the terminal
                context.load_cert_chain(self._settings.kafka_ssl_cert_file, self._settings.kafka_ssl_key_file, password)
            with handshake(address, context) as secured:
                if shown := secured.getpeercert(binary_form=True):
                    return _end_of_shown(shown)
        return None


def _end_of_shown(der: bytes) -> float | None:
    """None: unknown. TLS takes certificates that this parser refuses, such as one with a negative serial number."""
    with suppress(ValueError):
        return _end(x509.load_der_x509_certificate(der))
    return None


def _end(certificate: x509.Certificate) -> float:
    return certificate.not_valid_after_utc.timestamp()
