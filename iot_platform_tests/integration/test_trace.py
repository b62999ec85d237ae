"""`iot trace` says what became of each value: kept beside another one, replaced, moved, unchanged, missing."""

import threading
import time
from contextlib import closing
from typing import Any

import pytest
from psycopg2.errors import QueryCanceled

from iot_platform.database import connect
from iot_platform.diagnostics import trace
from iot_platform.diagnostics.trace import follow
from iot_platform.settings import Settings
from iot_platform.telemetry.project_options import set_option
from iot_platform_tests.support.feeds.drain import Feed, drain, query
from iot_platform_tests.support.feeds.sparkplug import CODECS, metric, nbirth, payload

FIRST, LATER = "conflict: another value came first", "conflict: a later value took its place"


@pytest.fixture
def feed(settings: Settings) -> Feed:
    return Feed(settings)


def choose(settings: Settings, name: str, value: str) -> None:
    with closing(connect(settings, "writer", "test")) as connection:
        set_option(connection, name, value)


def drained(settings: Settings, feed: Feed) -> None:
    feed.flush()
    drain(settings)


def traced(settings: Settings, offset: int) -> dict[str, Any]:
    """The only measurement of a message of partition 0."""
    (found,) = follow(settings, 0, offset).measurements
    return found


def told(settings: Settings, count: int) -> list[tuple[str, int | None]]:
    """Of the first messages of partition 0, the state and the offset of the message whose value is stored."""
    found = [traced(settings, offset) for offset in range(count)]
    return [(item["state"], item["stored_by"]["offset"] if item.get("stored_by") else None) for item in found]


def test_kept_values_are_found_beside_the_first_one(settings: Settings, feed: Feed) -> None:
    choose(settings, "conflicts", "keep")
    at = time.time_ns() // 1000 // 4096 * 4096 - 1  # what stands beside it is in the next window
    for value in (1, 2, 3, 2):
        feed.send(b'{"ts":%d,"temp":%d}' % (at, value))
    drained(settings, feed)
    kept = "kept beside the value that came first, {} µs later"
    assert told(settings, 4) == [("present", None), (kept.format(1), None), (kept.format(2), None), ("duplicate of offset 1", None)]
    assert traced(settings, 2)["stored"]["value"] == 1.0
    assert (traced(settings, 2)["kept_at"] - traced(settings, 2)["time"]).microseconds == 2


def test_a_value_that_met_a_kept_one_names_its_message(settings: Settings, feed: Feed) -> None:
    choose(settings, "conflicts", "keep")
    at = time.time_ns() // 1000
    feed.send(b'{"ts":%d,"temp":1}' % at)
    feed.send(b'{"ts":%d,"temp":2}' % at)
    drained(settings, feed)
    choose(settings, "conflicts", "first")
    feed.send(b'{"ts":%d,"temp":3}' % (at + 1))
    drained(settings, feed)
    assert (traced(settings, 2)["stored"]["value"], *told(settings, 3)[2]) == (2.0, FIRST, 1)


def test_a_replaced_value_names_the_later_one(settings: Settings, feed: Feed) -> None:
    choose(settings, "conflicts", "last")
    at = time.time_ns() // 1000
    for value in (1, 2, 1, 1):
        feed.send(b'{"ts":%d,"temp":%d}' % (at, value))
    for value in (5, 6):
        feed.send(b'{"ts":%d,"temp":%d}' % (at + 10, value))
    drained(settings, feed)
    assert told(settings, 6) == [
        ("present", None), (LATER, 2), ("duplicate of offset 0", None), ("duplicate of offset 0", None), (LATER, 5), ("present", None),
    ]  # fmt: skip


def test_the_option_of_today_does_not_tell_who_came_first(settings: Settings, feed: Feed) -> None:
    at = time.time_ns() // 1000
    for value in (1, 2):
        feed.send(b'{"ts":%d,"temp":%d}' % (at, value))
    drained(settings, feed)
    choose(settings, "conflicts", "last")
    assert told(settings, 2) == [("present", None), (FIRST, 0)]


def test_a_retained_state_that_did_not_change_is_not_missing(settings: Settings, feed: Feed) -> None:
    for value in (7, 7, 8):
        feed.send(b'{"level":%d}' % value, retain=True)
    drained(settings, feed)
    (first, _), (unchanged, _), (changed, _) = told(settings, 3)
    assert (first, changed) == ("present", "present")
    assert unchanged.startswith("unchanged: a retained state, as of ")
    query(settings, "WITH gone AS (DELETE FROM measurement RETURNING 1) SELECT count(*) FROM gone")
    assert [state for state, _ in told(settings, 3)] == ["missing (retention, or a fault)"] * 3


def test_a_message_that_was_moved_is_found_as_the_one_whose_value_is_stored(settings: Settings, feed: Feed) -> None:
    at = time.time_ns() // 1000
    feed.send(b'{"n":1}', at=at)
    feed.send(b'{"n":2}', at=at)
    drained(settings, feed)
    feed.send(b'{"ts":%d,"n":3}' % (at + 1))
    drained(settings, feed)
    moved = traced(settings, 1)
    assert (moved["state"], moved["stored"]["value"], told(settings, 3)[2]) == ("present", 2.0, (FIRST, 1))


def test_candidates_are_decoded_by_the_births_before_them(settings: Settings) -> None:
    own = settings.model_copy(update={"topic_codecs": CODECS})
    feed, at = Feed(own), int(time.time()) * 1000
    topic = "spBv1.0/plant/{}/node"
    feed.send(nbirth(metric(0.0, name="temp", alias=1)), topic=topic.format("NBIRTH"), partition=1)
    for seq, value in ((1, 10.0), (2, 11.0)):
        feed.send(payload(seq, metric(value, alias=1), timestamp=at), topic=topic.format("NDATA"), partition=1)
    drained(own, feed)
    (found,) = follow(own, 1, 2).measurements
    assert (found["state"], found["stored_by"]["offset"]) == (FIRST, 1)


def test_a_table_that_does_not_answer_ends_the_trace(settings: Settings, feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit of a statement's time holds for those after the options were read, too."""
    feed.send(b'{"n":1}')
    drained(settings, feed)
    monkeypatch.setattr(trace, "STATEMENT_SECONDS", 1)
    with closing(connect(settings, "admin", "test")) as connection, connection.cursor() as cursor:
        cursor.execute("LOCK TABLE measurement IN ACCESS EXCLUSIVE MODE")
        release = threading.Timer(15, connection.close)
        release.start()
        try:
            with pytest.raises(QueryCanceled):
                follow(settings, 0, 0)
        finally:
            release.cancel()
