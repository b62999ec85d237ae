"""The sink's failures: what the last one means, which of them are logged, and when Kafka is to be tried again."""

from collections.abc import Callable
from typing import Any

import structlog
from confluent_kafka import KafkaError

from ingest_daemon.kafka_causes import cause
from ingest_daemon.settings import Settings

FIRST_DELAY_SECONDS, LAST_DELAY_SECONDS = 0.5, 15.0
REPEAT_SECONDS = 300.0  # a failure that goes on is logged this often
QUIET_SECONDS = 5.0

log = structlog.get_logger("ingest.kafka")


class Failures:
    """Back-off that doubles while failures go on."""

    def __init__(self, settings: Settings, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._clock = clock
        self._delay = FIRST_DELAY_SECONDS
        self._last = self._logged_at = 0.0
        self._logged = ""
        self._retry_at = 0.0

    def note(self, error: Any, problem: str | None, *, again: bool) -> str:
        """The problem as a sentence; `problem` is the one that stood before. `again`: it belongs to a failure that was noted already."""
        now = self._clock()
        if now - self._last > 2 * LAST_DELAY_SECONDS:
            self._delay = FIRST_DELAY_SECONDS
        if not again:
            self._retry_at = now + self._delay
            self._delay = min(2 * self._delay, LAST_DELAY_SECONDS)
            self._log(error, now)
        self._last = now
        if problem and error.code() == KafkaError._INVALID_DIFFERENT_RECORD:
            return problem  # which says more
        return f"Kafka: {cause(error, self._settings)}"

    def _log(self, error: Any, now: float) -> None:
        if error.name() != self._logged or now - self._logged_at > REPEAT_SECONDS:
            log.warning("delivery_failed", reason=cause(error, self._settings), code=error.name(), topic=self._settings.kafka_topic)
            self._logged, self._logged_at = error.name(), now

    @property
    def due(self) -> bool:
        """Whether it is time to try again."""
        return self._clock() >= self._retry_at

    @property
    def quiet(self) -> bool:
        """Whether there was none for a while."""
        return self._clock() - self._last > QUIET_SECONDS

    def retry_now(self) -> None:
        """What was wrong has been put right."""
        self._retry_at, self._delay = self._clock(), FIRST_DELAY_SECONDS

    def retry_late(self) -> None:
        """Nothing can be tried now."""
        self._retry_at = self._clock() + LAST_DELAY_SECONDS
