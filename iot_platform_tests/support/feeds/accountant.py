"""A platform with some messages in it, and an ingest daemon that says what a test wants it to say."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from iot_platform.settings import Settings
from iot_platform_tests.support.feeds.drain import Feed, drain
from iot_platform_tests.support.servers.http_pages import HttpPages


class Accountant(HttpPages):
    """Answers GET /accounting as a daemon does."""

    def __init__(self) -> None:
        self.document: dict[str, Any] = {}
        super().__init__(lambda path: (200 if path == "/accounting" else 404, json.dumps(self.document).encode()))

    def says(self, *connections: tuple[int, int, int, int], client: str = "ingest", **counters: int) -> None:
        """(number, received, settled, in_kafka) of each connection, the last one open; counters that fit unless given."""
        received, in_kafka = sum(item[1] for item in connections), sum(item[3] for item in connections)
        settled = sum(item[2] for item in connections)
        now = datetime.now(UTC).isoformat()
        fitting = {"received": received, "delivered": in_kafka, "spooled": settled - in_kafka, "in_flight": received - settled}
        others = dict.fromkeys(("dead_lettered", "given_up", "missing", "sessions_lost"), 0)
        self.document = {"client_id": client, "reported_at": now, **others, **fitting, **counters}
        names = ("number", "received", "settled", "in_kafka")
        self.document["connections"] = [
            {**dict(zip(names, item, strict=True)), "opened_at": now, "open": item is connections[-1]} for item in connections
        ]


@pytest.fixture
def accountant() -> Iterator[Accountant]:
    made = Accountant()
    yield made
    made.close()


@pytest.fixture
def reported(settings: Settings, accountant: Accountant) -> Settings:
    """40 messages of one connection in two partitions, four of them quarantined, and a daemon that reports them all."""
    feed = Feed(settings)
    for number in range(40):
        feed.send(b"broken" if number % 10 == 3 else b'{"n":%d}' % number, partition=number % 2)
    feed.flush()
    drain(settings.model_copy(update={"drain_batch_records": 7}))
    accountant.says((1, 40, 40, 40))
    return settings.model_copy(update={"ingest_http_url": accountant.url})
