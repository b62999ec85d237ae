"""Readings with running numbers, sent and drained, and compared with what the database holds."""

import json
import time
from datetime import UTC, datetime

from iot_platform.audit.audit import run_audit
from iot_platform.settings import Settings
from iot_platform_tests.support.feeds.drain import Feed, check_books, drain, query


class Publisher:
    """Sends readings with running numbers to both partitions, and compares what the database holds with them."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._feed, self._sent = settings, Feed(settings), list[str]()

    def send(self, count: int) -> None:
        for _ in range(count):
            number = len(self._sent)
            payload = json.dumps({"deviceId": f"d{number % 7}", "number": number, "ts": int(time.time() * 1_000_000) + number})
            self._feed.send(payload.encode(), partition=number % 2)
            self._sent.append(payload)
        self._feed.flush()

    def send_and_drain(self, count: int) -> None:
        self.send(count)
        drain(self._settings)

    @property
    def stored(self) -> list[str]:
        return sorted(row[0].decode() for row in query(self._settings, "SELECT payload FROM message"))

    def require_equal(self) -> None:
        """Set equality; each once."""
        assert self.stored == sorted(self._sent)
        check_books(self._settings)
        found = run_audit(self._settings, since=datetime.fromtimestamp(0, UTC), wait_seconds=0)
        assert not [difference for difference in found.differences if difference.kind in ("offsets", "accounting")]
