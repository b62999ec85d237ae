"""How to reach the MQTT broker and Kafka, as the settings of every process have it: users, passwords, certificates."""

import hashlib
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NoReturn
from urllib.parse import unquote, urlsplit

from pydantic import SecretStr

from ingest_daemon.errors import SettingsError


class ServerSettings:
    """Of a settings class that has these fields. Passwords are read anew at each call."""

    if TYPE_CHECKING:  # each class has its own description of them
        mqtt_url: SecretStr
        mqtt_password_file: Path | None
        mqtt_tls_ca_file: Path | None
        mqtt_tls_cert_file: Path | None
        mqtt_tls_key_file: Path | None
        kafka_bootstrap_servers: str
        kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
        kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None
        kafka_sasl_username: str | None
        kafka_sasl_password: SecretStr | None
        kafka_sasl_password_file: Path | None
        kafka_ssl_ca_file: Path | None
        kafka_ssl_cert_file: Path | None
        kafka_ssl_key_file: Path | None

    @property
    def mqtt_user(self) -> str | None:
        """User name for the broker, from the URL, percent-decoded."""
        name = urlsplit(self.mqtt_url.get_secret_value()).username
        return unquote(name) if name is not None else None

    def mqtt_password(self) -> str | None:
        """The password for the broker as it is now: read from IOT_MQTT_PASSWORD_FILE at each call if that is set, else the URL's.

        Raises:
            SettingsError: the file can't be read, or is empty. Retry: it may be being replaced.
        """
        if self.mqtt_password_file is not None:
            return _password(self.mqtt_password_file, "IOT_MQTT_PASSWORD_FILE")
        password = urlsplit(self.mqtt_url.get_secret_value()).password
        return unquote(password) if password is not None else None

    def mqtt_tls_context(self) -> ssl.SSLContext:
        """A verifying TLS context. Raises SettingsError when a certificate or key can't be loaded. Retry: it may be being replaced."""
        try:
            context = ssl.create_default_context(cafile=self.mqtt_tls_ca_file)
            if self.mqtt_tls_cert_file:
                context.load_cert_chain(self.mqtt_tls_cert_file, self.mqtt_tls_key_file, password=self._no_key_password)
        except OSError as error:
            raise SettingsError(f"IOT_MQTT_TLS_CA_FILE, IOT_MQTT_TLS_CERT_FILE or IOT_MQTT_TLS_KEY_FILE: {error}") from error
        return context

    def _no_key_password(self) -> NoReturn:
        """Instead of OpenSSL's question on the terminal, which a process that serves would wait for."""
        raise SettingsError(f"IOT_MQTT_TLS_KEY_FILE: {self.mqtt_tls_key_file} is encrypted, and there is nobody to ask for its password")

    def digest(self, *names: str) -> bytes:
        """Of the files that these fields name. Raises SettingsError when one can't be read. Retry: it may be being replaced."""
        digest = hashlib.sha256()
        for name in names:
            path = getattr(self, name)
            if path is None:
                continue
            try:
                digest.update(hashlib.sha256(path.read_bytes()).digest())
            except OSError as error:
                raise SettingsError(f"IOT_{name.upper()}: can't read {path}: {error.strerror}") from error
        return digest.digest()

    def kafka_password(self) -> str | None:
        """The SASL password as it is now: read from IOT_KAFKA_SASL_PASSWORD_FILE at each call if that is set. None without SASL.

        Raises:
            SettingsError: the file can't be read, or is empty. Retry: it may be being replaced.
        """
        if not self.kafka_security_protocol.startswith("SASL"):
            return None
        if self.kafka_sasl_password_file is None:
            return self.kafka_sasl_password.get_secret_value() if self.kafka_sasl_password else None
        return _password(self.kafka_sasl_password_file, "IOT_KAFKA_SASL_PASSWORD_FILE")

    def kafka_config(self) -> dict[str, str | int | float | bool]:
        """librdkafka configuration of the connection: brokers, security, credentials. Raises SettingsError: see `kafka_password`."""
        config: dict[str, str | int | float | bool] = {
            "bootstrap.servers": self.kafka_bootstrap_servers,
            "security.protocol": self.kafka_security_protocol,
        }
        optional = {
            "sasl.mechanism": self.kafka_sasl_mechanism,
            "sasl.username": self.kafka_sasl_username,
            "sasl.password": self.kafka_password(),
            "ssl.ca.location": self.kafka_ssl_ca_file,
            "ssl.certificate.location": self.kafka_ssl_cert_file,
            "ssl.key.location": self.kafka_ssl_key_file,
        }
        config.update({key: str(value) for key, value in optional.items() if value is not None})
        return config


def text(file: Path, variable: str) -> str:
    """The text of the file that a variable names. Raises SettingsError."""
    try:
        return file.read_text("utf-8")
    except OSError as error:
        raise SettingsError(f"{variable}: can't read {file}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise SettingsError(f"{variable}: {file} is not UTF-8") from None


def _password(file: Path, variable: str) -> str:
    """A password and nothing else but the end of its line. Raises SettingsError."""
    password = text(file, variable).rstrip("\r\n")
    if not password:
        raise SettingsError(f"{variable}: {file} is empty")
    return password
