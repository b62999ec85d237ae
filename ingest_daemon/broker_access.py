"""What the daemon shows the MQTT broker and asks of it (password, certificates, topic filters), as the files that settings name hold it."""

import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import structlog

from ingest_daemon.errors import SettingsError
from ingest_daemon.settings import Settings

RETRY_SECONDS = 300.0  # what the broker did not take is tried again so seldom while something else works

log = structlog.get_logger("ingest.mqtt")


@dataclass(frozen=True, slots=True, eq=False)
class BrokerAccess:
    """Filters take effect on the live connection, a password with the next one, certificates need a new one."""

    topic_filters: tuple[str, ...]
    password: str | None
    certificates: bytes  # digest of CA, certificate and key
    tls: ssl.SSLContext | None

    def __repr__(self) -> str:
        return "BrokerAccess(…)"


class BrokerFiles:
    """`current` is what the files held at the last `look` that found them usable; any thread may compare it with what it uses."""

    def __init__(self, settings: Settings) -> None:
        """Raises SettingsError when a file can't be read or used."""
        self._settings = settings
        self._lock = threading.Lock()
        self._problems: dict[str, str] = {}
        self._filters = settings.topic_filters()
        digest = self._digest()
        tls = settings.mqtt_tls_context() if settings.mqtt_tls else None
        self.current = BrokerAccess(self._filters, settings.mqtt_password(), digest, tls)

    @property
    def problems(self) -> list[str]:
        """Files that can't be used as they are now; what they held before stays in use."""
        return list(self._problems.values())

    def look(self) -> None:
        """Read the files again; may block as long as their file system does."""
        with self._lock:
            self._look_at("topic_filters", self._settled_filters)
            self._look_at("password", self._settings.mqtt_password)
            self._look_at("certificates", self._digest)

    def _look_at(self, part: str, find: Callable[[], Any]) -> None:
        try:
            found = find()
            if found != getattr(self.current, part):
                more: dict[str, Any] = {"tls": self._settings.mqtt_tls_context()} if part == "certificates" else {}
                self.current = replace(self.current, **{part: found}, **more)
                log.info("mqtt_access_changed", what=part)
        except SettingsError as error:
            if self._problems.get(part) != str(error):
                log.warning("mqtt_access_unusable", reason=str(error), hint="what the file held before stays in use")
            self._problems[part] = str(error)
        else:
            self._problems.pop(part, None)

    def _settled_filters(self) -> tuple[str, ...]:
        """Filters that the file held at the look before, too: half of it would unsubscribe from what is missing."""
        before, self._filters = self._filters, self._settings.topic_filters()
        return self._filters if self._filters == before else self.current.topic_filters

    def _digest(self) -> bytes:
        return self._settings.digest("mqtt_tls_ca_file", "mqtt_tls_cert_file", "mqtt_tls_key_file")


class AccessInUse:
    """Which of them the session connects with: the newest, and in turn with it what worked last while the broker does not take that."""

    def __init__(self, files: BrokerFiles, clock: Callable[[], float] = time.monotonic) -> None:
        self._files = files
        self._clock = clock
        self._newest = self.current = files.current
        self._proven: BrokerAccess | None = None  # what the broker took last
        self._retry_at = 0.0
        self.refused: str | None = None
        """Why what the files hold now is not in use."""

    @property
    def topic_filters(self) -> tuple[str, ...]:
        """The filters to subscribe to."""
        return self._files.current.topic_filters

    @property
    def fresh(self) -> bool:
        """Whether password or certificates have changed since a connection was tried last."""
        return self._files.current is not self._newest and not _same(self._files.current, self._newest)

    @property
    def renewal_due(self) -> bool:
        """Whether a connection that stands is to be made anew, to show other certificates."""
        if self._files.current is not self._newest and self._files.current.certificates != self._newest.certificates:
            return True
        return self.refused is not None and self._clock() >= self._retry_at

    def take(self) -> None:
        """Choose what the next attempt shows (`current`)."""
        if self.fresh or (self.refused and self._clock() >= self._retry_at):
            self.current, self.refused = self._files.current, None
        self._newest = self._files.current

    def failed(self, why: str) -> None:
        """The broker does not take `current`, or we don't take its certificate."""
        if not _same(self.current, self._newest):
            self.current = self._newest
        elif self._proven is not None and not _same(self._proven, self._newest):
            self.current = self._proven
            self.refused = f"MQTT: {why}; what the files held before is tried in turn"
            self._retry_at = self._clock() + RETRY_SECONDS
            log.warning("mqtt_access_refused", reason=why, hint="what the files held before is tried in turn")

    def worked(self) -> None:
        """The broker has taken `current`."""
        self._proven = self.current
        if _same(self.current, self._newest):
            self.refused = None


def _same(one: BrokerAccess, other: BrokerAccess) -> bool:
    return (one.certificates, one.password) == (other.certificates, other.password)
