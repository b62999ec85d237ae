"""Notices a new password or new certificates in the files that the settings name, so that the running daemon takes them over."""

import threading
from dataclasses import dataclass

import structlog

from ingest_daemon.errors import SettingsError
from ingest_daemon.settings import Settings

log = structlog.get_logger("ingest.kafka")


@dataclass(frozen=True, slots=True)
class ClientCredentials:
    """The credentials in use. A changed password is given to live clients; changed files need new clients."""

    password: str | None
    files: bytes  # digest of CA, certificate and key

    def __repr__(self) -> str:
        return "ClientCredentials(…)"


class Credentials:
    """`current` is what the files held at the last `look`; any thread may ask for it, and compare it with what it uses."""

    def __init__(self, settings: Settings) -> None:
        """Raises SettingsError when a file can't be read."""
        self._settings = settings
        self._lock = threading.Lock()
        self._problem: str | None = None
        self.current = self._read()

    def look(self) -> None:
        """Read the files again; may block as long as their file system does. What can't be read keeps its last content."""
        with self._lock:
            try:
                found = self._read()
            except SettingsError as error:
                if str(error) != self._problem:
                    log.warning("credentials_unreadable", reason=str(error), hint="the last ones stay in use")
                self._problem = str(error)
                return
            self._problem = None
            if found != self.current:
                log.info("credentials_changed", password=found.password != self.current.password, files=found.files != self.current.files)
                self.current = found

    def _read(self) -> ClientCredentials:
        files = self._settings.digest("kafka_ssl_ca_file", "kafka_ssl_cert_file", "kafka_ssl_key_file")
        return ClientCredentials(self._settings.kafka_password(), files)
