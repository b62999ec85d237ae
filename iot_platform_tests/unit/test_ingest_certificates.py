"""Certificates and keys that can't be used: unknown, or refused by name; nobody is asked for anything."""

import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from ingest_daemon.certificates import Certificates
from ingest_daemon.settings import Settings
from iot_platform_tests.support.servers.certificates import Authority, Pair

LOAD = """
import sys
from pathlib import Path
from {package}.settings import Settings, SettingsError
cert, key = map(Path, sys.argv[1:])
try:
    Settings(mqtt_url="mqtts://broker", mqtt_tls_cert_file=cert, mqtt_tls_key_file=key).mqtt_tls_context()
except SettingsError as error:
    print(error)
"""


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Authority(tmp_path / "ca").issue(tmp_path, "me")


@pytest.fixture
def encrypted(pair: Pair) -> Pair:
    """Its key wants the password `secret`."""
    made = Pair(pair.cert_file, pair.key_file.with_suffix(".encrypted"))
    subprocess.run(["openssl", "pkey", "-aes256", "-in", pair.key_file, "-passout", "pass:secret", "-out", made.key_file], check=True)
    return made


@pytest.mark.parametrize("package", ["ingest_daemon", "iot_platform"])
def test_an_encrypted_key_is_named_and_its_password_not_asked_for(package: str, encrypted: Pair) -> None:
    """Without a terminal OpenSSL asks standard input, and would take the answer."""
    command = [sys.executable, "-c", LOAD.format(package=package), encrypted.cert_file, encrypted.key_file]
    done = subprocess.run(command, input="secret\n", capture_output=True, text=True, check=True, start_new_session=True)
    assert f"IOT_MQTT_TLS_KEY_FILE: {encrypted.key_file} is encrypted" in done.stdout


def test_a_certificate_that_cannot_be_read_leaves_the_end_unknown(pair: Pair) -> None:
    der = ssl.PEM_cert_to_DER_cert(pair.cert_file.read_text())
    shown = [der]
    certificates = Certificates(Settings(), lambda: shown[-1])
    certificates.look()
    assert list(certificates.ends) == [("mqtt", "server")]
    shown.append(der[:-1])
    certificates.look()
    assert not certificates.ends


@contextmanager
def tls_server(pair: Pair) -> Iterator[str]:
    """Ends each connection after the handshake."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert_file, pair.key_file)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with suppress(OSError), context.wrap_socket(connection, server_side=True):
                        pass

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize("options", [{}, {"ssl.key.password": "secret"}])
def test_kafka_is_asked_with_an_encrypted_key_where_its_password_is_known(pair: Pair, encrypted: Pair, options: dict[str, str]) -> None:
    with tls_server(pair) as address:
        shown: Any = {"kafka_ssl_cert_file": encrypted.cert_file, "kafka_ssl_key_file": encrypted.key_file}
        settings = Settings(kafka_bootstrap_servers=address, kafka_security_protocol="SSL", ingest_kafka_options=options, **shown)
        certificates = Certificates(settings, lambda: None)
        certificates.look()
        assert (("kafka", "server") in certificates.ends) == bool(options)
