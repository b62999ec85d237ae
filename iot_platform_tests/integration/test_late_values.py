"""What was received more than two minutes after its time says so, whichever way it came into the table."""

import json
import time

import pytest

from iot_platform.settings import Settings
from iot_platform.telemetry.counters import PUNCTUAL_SECONDS
from iot_platform.telemetry.replay.replay import Replay, Selection
from iot_platform_tests.support.feeds.drain import Feed, drain, query

SECOND = 1_000_000
FLAGS = "SELECT metric, flags FROM measurement_named ORDER BY 1"
LATE = {"late": 4, "longer": 4, "ordinary": None, "ahead": None, "untimed": None}


@pytest.fixture
def fed(settings: Settings) -> Settings:
    """One message of each kind, received now."""
    feed, now = Feed(settings), time.time_ns() // 1000
    edge = PUNCTUAL_SECONDS * SECOND
    for metric, behind in (("ordinary", edge), ("late", edge + 1), ("longer", 40 * 3600 * SECOND), ("ahead", -2 * edge)):
        feed.send(json.dumps({"ts": now - behind, metric: 1}).encode(), at=now)
    feed.send(b'{"untimed": 1}', at=now)
    feed.flush()
    drain(settings)
    return settings


def test_a_late_value_has_its_flag(fed: Settings) -> None:
    assert dict(query(fed, FLAGS)) == LATE
    assert dict(query(fed, "SELECT metric, flags FROM latest_named")) == LATE


def test_one_that_is_restored_from_its_message_has_it_again(fed: Settings) -> None:
    query(fed, "DELETE FROM measurement")
    Replay(fed, Selection()).run()
    assert dict(query(fed, FLAGS)) == LATE
