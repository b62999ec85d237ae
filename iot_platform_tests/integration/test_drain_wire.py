"""The drain's connections broken on the wire, at named points of PostgreSQL's protocol and by half-open links: every offset once."""

import json
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from pydantic import SecretStr

from iot_platform.database import connection as connection_module
from iot_platform.drills.rig.proxy import Proxy
from iot_platform.drills.rig.wire import Point, PostgresFaults
from iot_platform.settings import Settings
from iot_platform_tests.support.feeds.drain import TOPIC, Feed, check_books, drain, query

COUNT = 2000


@pytest.fixture
def proxy(settings: Settings) -> Iterator[Proxy]:
    with Proxy("127.0.0.1", urlsplit(settings.writer_url).port or 5432) as made:
        yield made


@pytest.fixture
def through(settings: Settings, proxy: Proxy) -> Settings:
    """Settings with the database behind the proxy, in small batches."""
    parts = urlsplit(settings.writer_url)
    url = parts._replace(netloc=parts.netloc.rpartition(":")[0] + f":{proxy.port}").geturl()
    return settings.model_copy(update={"database_url": SecretStr(url), "drain_batch_records": 200})


def fill(settings: Settings) -> None:
    feed = Feed(settings)
    base = time.time_ns() // 1_000_000 - 600_000
    for number in range(COUNT):
        feed.send(json.dumps({"ts": base + number, "n": number}).encode(), partition=number % 2, topic=f"{TOPIC}/{number % 5}")
    feed.flush()


def check_complete(settings: Settings) -> None:
    check_books(settings)
    assert query(settings, "SELECT count(*) FROM message") == [(COUNT,)]


@pytest.mark.parametrize(("point", "rolled_back"), [("at_begin", 0), ("in_copy", 0), ("before_commit", 1), ("answer_lost", 0)])
def test_cut_at_a_point_of_the_protocol(settings: Settings, through: Settings, proxy: Proxy, point: Point, rolled_back: int) -> None:
    fill(settings)
    faults = PostgresFaults()
    proxy.watch(faults)
    struck = faults.arm(point, 3)
    progress = drain(through, run_id="wire")
    assert struck.reached.is_set()
    assert struck.application_name == "iot-drain wire"
    assert (progress.retries, progress.messages) == (1, COUNT)
    check_complete(settings)
    commits = len(query(settings, "SELECT DISTINCT committed_at FROM ledger"))
    assert faults.seen["before_commit"] - commits == rolled_back


def test_a_link_that_dies_without_a_word(settings: Settings, through: Settings, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Held inside COPY, then half-open: the drain gives the connection up by itself, and the server gives up what it had."""
    monkeypatch.setattr(connection_module, "ANSWER_SECONDS", 2.0)
    monkeypatch.setattr(connection_module, "_WRITER", connection_module._WRITER.replace("'60s'", "'3s'"))
    fill(settings)
    faults = PostgresFaults()
    proxy.watch(faults)
    struck = faults.arm("before_commit", 3, hold=True)  # never released: the COMMIT is lost, and so is everything after it
    progress = drain(through, run_id="deaf")
    assert struck.reached.is_set()
    assert progress.retries >= 1
    assert progress.messages == COUNT
    check_complete(settings)
