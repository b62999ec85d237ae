"""A platform whose messages come straight from a test, and the quality rules evaluated by a clock of the test's."""

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from iot_platform.database import connect
from iot_platform.quality import Evaluation, evaluate
from iot_platform.quality.rules import RuleSetting, write_rules
from iot_platform.settings import Settings
from iot_platform_tests.support.feeds.direct import PROJECT, DirectFeed, microseconds
from iot_platform_tests.support.feeds.drain import query


class World:
    """Times are minutes since `start`, the beginning of an hour some hours ago."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.feed = DirectFeed(settings)
        self.start = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=8)

    def at(self, minute: float) -> datetime:
        """The moment."""
        return self.start + timedelta(minutes=minute)

    def millis(self, minute: float) -> int:
        """The moment as devices write it."""
        return microseconds(self.at(minute)) // 1000

    def send(self, minute: float, payload: Any, device: str = "device") -> None:
        """One message of a device, received then."""
        self.feed.send(self.at(minute), payload, f"{PROJECT}/{device}")

    def judge(self, minute: float, *rules: str) -> Evaluation:
        """Commit what was sent, and evaluate as if it were that minute."""
        self.feed.flush()
        result = evaluate(self.settings, at=self.at(minute), **({"rules": rules} if rules else {}))  # type: ignore[arg-type]
        assert result.errors == []
        return result

    def incidents(self, rule: str) -> list[tuple[str, str, bool, int]]:
        """(device, metric, open, flaps), oldest first."""
        text = "SELECT device_id, metric, closed_at IS NULL, flaps FROM quality_incident WHERE rule = %s ORDER BY incident_id"
        return [(device, metric, is_open, flaps) for device, metric, is_open, flaps in query(self.settings, text, rule)]

    def configure(self, **values: Any) -> None:
        """Set a rule."""
        with closing(connect(self.settings)) as connection:
            write_rules(connection, [RuleSetting(**values)])


@pytest.fixture
def world(settings: Settings) -> Iterator[World]:
    made = World(settings)
    yield made
    made.feed.close()
