"""Conflicts by the project's choice (first, last, keep), and retained states: values, latest, rollups, books, and decoding again."""

import json
import time
from contextlib import closing
from typing import Any

import pytest

from iot_platform.compression.compress import compress
from iot_platform.database import connect
from iot_platform.rollups import roll_up
from iot_platform.settings import Settings
from iot_platform.telemetry.project_options import set_option
from iot_platform.telemetry.replay.replay import Replay, Selection, Tally
from iot_platform.tenants.deletion import delete_tenant
from iot_platform_tests.support.feeds.drain import TOPIC, Feed, check_books, drain, query

pytestmark = pytest.mark.both_editions

TENANT, PROJECT = TOPIC.split("/")[-2:]
HOUR_US = 3_600_000_000
# Values of 30 hours ago are late, all of them: bit 4 says nothing here.
STANDS = """
SELECT (extract(epoch FROM time) * 1000000)::bigint - %s, value, nullif(flags & ~4, 0)
FROM {} WHERE metric = %s AND project_id = %s ORDER BY 1"""


@pytest.fixture
def feed(settings: Settings) -> Feed:
    return Feed(settings)


@pytest.fixture
def base() -> int:
    """The beginning of an hour that is stored as a rollup by now, in µs."""
    return (time.time_ns() // 1000 // HOUR_US - 30) * HOUR_US


def choose(settings: Settings, name: str, value: str, project: str = PROJECT) -> None:
    with closing(connect(settings, "writer", "test")) as connection:
        set_option(connection, name, value, tenant=TENANT, project=project)


def send(feed: Feed, base: int, *values: object, topic: str = TOPIC, at: int = 0, metric: str = "temp") -> None:
    for value in values:
        feed.send(json.dumps({"ts": base + at, metric: value}).encode(), topic=topic)


def stands(settings: Settings, base: int, metric: str = "temp", view: str = "measurement_named", project: str = PROJECT) -> list[Any]:
    return query(settings, STANDS.format(view), base, metric, project)


def counts(settings: Settings) -> tuple[int, int, int]:
    """Measurements, duplicates and conflicts, as accounted."""
    names = ("measurements", "measurement_duplicates", "measurement_conflicts")
    found = query(settings, f"SELECT {', '.join(f'sum({name})::bigint' for name in names)} FROM accounting_1h")[0]
    return (int(found[0]), int(found[1]), int(found[2]))


def check(settings: Settings) -> None:
    """Books, measurements as accounted, and rollups that equal what is stored."""
    check_books(settings)
    assert query(settings, "SELECT problem FROM audit_measurements() WHERE problem IS NOT NULL") == []
    roll_up(settings)
    stored = query(settings, "SELECT bucket, series_id, value_count, value_sum FROM measurement_1h_named ORDER BY 1, 2")
    counted = """
        SELECT date_trunc('hour', time), series_id, count(*), sum(value) FROM measurement GROUP BY 1, 2 ORDER BY 1, 2"""
    assert stored == query(settings, counted)


def replay(settings: Settings, dry_run: bool = False) -> Tally:
    return Replay(settings, Selection(), dry_run=dry_run).run()


def drained(settings: Settings, feed: Feed, records: int = 1_000) -> None:
    feed.flush()
    drain(settings.model_copy(update={"drain_batch_records": records}))


def test_first_is_the_default(settings: Settings, feed: Feed, base: int) -> None:
    send(feed, base, 1, 2, 1)
    drained(settings, feed)
    send(feed, base, 3)
    drained(settings, feed)
    assert stands(settings, base) == [(0, 1, None)]
    assert counts(settings) == (1, 1, 2)
    check(settings)


@pytest.mark.parametrize("records", [1, 1_000])
def test_the_last_value_takes_the_place(settings: Settings, feed: Feed, base: int, records: int) -> None:
    choose(settings, "conflicts", "last")
    other = f"mtic/msg/client/realtime/{TENANT}/other"
    send(feed, base, 1, 5, 5, 2)
    send(feed, base, 7, 8, at=10, metric="text")
    send(feed, base, 1, 2, topic=other)
    drained(settings, feed, records)
    roll_up(settings)
    assert stands(settings, base) == stands(settings, base, view="latest_named") == [(0, 2, None)]
    assert stands(settings, base, project="other") == [(0, 1, None)]  # the neighbour's choice is another
    send(feed, base, 4, at=20)
    send(feed, base, 3, 9)  # the hour is stored, and the value is not the latest any more
    send(feed, base, "off", at=10, metric="text")
    send(feed, base, 6, 4, at=20)
    drained(settings, feed, records)
    assert stands(settings, base) == [(0, 9, None), (20, 4, None)]
    assert stands(settings, base, view="latest_named") == [(20, 4, None)]
    text = "SELECT value, value_int, value_text FROM {} WHERE metric = 'text'"
    assert query(settings, text.format("measurement_named")) == query(settings, text.format("latest_named")) == [(None, None, "off")]
    measurements, duplicates, conflicts = counts(settings)
    assert (measurements, duplicates + conflicts) == (4, 10)
    assert conflicts >= 8
    check(settings)
    before = query(settings, "SELECT m::text FROM measurement m ORDER BY 1")
    assert replay(settings, dry_run=True).measurements == replay(settings).measurements == 0
    assert query(settings, "SELECT m::text FROM measurement m ORDER BY 1") == before
    query(settings, "DELETE FROM measurement WHERE value = 9")  # a replay puts in order what it inserts itself
    assert replay(settings).measurements == 1
    assert stands(settings, base) == [(0, 9, None), (20, 4, None)]


@pytest.mark.parametrize("records", [1, 1_000])
def test_every_value_is_kept(settings: Settings, feed: Feed, base: int, records: int) -> None:
    choose(settings, "conflicts", "keep")
    send(feed, base, 1)
    send(feed, base, 10, at=2)
    drained(settings, feed, records)
    roll_up(settings)
    send(feed, base, 2, 3, 2, 1, 10, 3)  # 1 is there, and the others come twice; the 10 at 2 is a reading of its own
    drained(settings, feed, records)
    expected = [(0, 1, None), (1, 2, 1), (2, 10, None), (3, 3, 1), (4, 10, 1)]
    assert stands(settings, base) == expected
    assert stands(settings, base, view="latest_named") == [(4, 10, 1)]
    assert counts(settings) == (5, 3, 3)
    send(feed, base, 11, at=2)  # what was kept stands in its way, too
    drained(settings, feed, records)
    assert stands(settings, base) == [*expected, (5, 11, 1)]
    check(settings)
    for _ in range(2):
        assert replay(settings, dry_run=True).measurements == replay(settings).measurements == 0
    assert stands(settings, base) == [*expected, (5, 11, 1)]
    check(settings)


@pytest.mark.several_sessions("many values")
def test_a_clock_that_stands_still(settings: Settings, feed: Feed, base: int) -> None:
    """Thousands of values for one time: all are kept, each once."""
    choose(settings, "conflicts", "keep")
    for number in range(6_000):
        send(feed, base, number % 5_000)
    drained(settings, feed)
    found = stands(settings, base)
    assert [at for at, _, _ in found] == list(range(5_000))
    assert [value for _, value, _ in found] == list(range(5_000))
    assert counts(settings) == (5_000, 1_000, 4_999)
    assert replay(settings).measurements == 0
    check(settings)


def test_a_choice_made_later_keeps_what_a_replay_finds(settings: Settings, feed: Feed, base: int) -> None:
    """Values that lost under `first` are still in their messages."""
    send(feed, base, 1, 2, 3)
    drained(settings, feed)
    assert counts(settings) == (1, 0, 2)
    choose(settings, "conflicts", "keep")
    assert replay(settings, dry_run=True).measurements == 2
    assert replay(settings).measurements == 2
    assert stands(settings, base) == [(0, 1, None), (1, 2, 1), (2, 3, 1)]
    assert counts(settings) == (3, 0, 2)
    assert replay(settings).measurements == 0
    check(settings)


@pytest.mark.parametrize("policy", ["last", "keep"])
def test_conflicts_in_a_compressed_chunk(settings: Settings, feed: Feed, base: int, policy: str, edition: str) -> None:
    old = base - 30 * 24 * HOUR_US
    choose(settings, "conflicts", policy)
    for number in range(20):
        send(feed, old, number, at=number * 1_000_000)
    drained(settings, feed)
    roll_up(settings)
    compress(settings)
    if edition == "community":
        assert query(settings, "SELECT count(*) > 0 FROM retention_chunks('measurement') WHERE compressed") == [(True,)]
    send(feed, old, 100, at=5_000_000)
    send(feed, old, 200, at=30_000_000)
    drained(settings, feed)
    found = {at: (value, flags) for at, value, flags in stands(settings, old)}
    if policy == "last":
        assert found[5_000_000] == (100, None)
    else:
        assert (found[5_000_000], found[5_000_001]) == ((5, None), (100, 1))
    assert len(found) == 21 + (policy == "keep")
    check(settings)
    assert replay(settings).measurements == 0


def test_a_retained_state_is_not_repeated(settings: Settings, feed: Feed) -> None:
    now = time.time_ns() // 1000 - 60_000_000
    for number, (value, retain) in enumerate(
        [("on", True), ("on", True), ("off", False), ("off", True), ("on", True), ("on", False), ("on", True)]
    ):
        feed.send(json.dumps({"state": value}).encode(), retain=retain, at=now + number)
        if number in (0, 3):
            drained(settings, feed)
    feed.send(b'{"state":"on","other":1}', retain=True, at=now + 10)  # one of two is new
    feed.send(json.dumps({"ts": now + 20, "state": "on"}).encode(), retain=True, at=now + 11)  # has a time: a reading
    drained(settings, feed)
    found = query(settings, "SELECT (extract(epoch FROM time) * 1000000)::bigint - %s, metric, value_text, flags"
                  " FROM measurement_named ORDER BY 1, 2", now)  # fmt: skip
    assert found == [
        (0, "state", "on", 2),
        (2, "state", "off", None),
        (4, "state", "on", 2),
        (5, "state", "on", None),
        (10, "other", None, 2),
        (20, "state", "on", None),
    ]
    assert query(settings, "SELECT metric, flags FROM latest_named ORDER BY 1") == [("other", 2), ("state", None)]
    assert counts(settings) == (6, 4, 0)
    check(settings)
    assert replay(settings, dry_run=True).measurements == replay(settings).measurements == 0
    choose(settings, "retained", "all")
    feed.send(b'{"state":"on"}', retain=True, at=now + 30)
    feed.send(b'{"state":"on"}', retain=True, at=now + 30)
    drained(settings, feed)
    assert [row[2] for row in stands(settings, now, "state")[-2:]] == [2, 3]
    assert replay(settings).measurements == 4  # those that were left out before
    choose(settings, "retained", "changes")
    assert replay(settings).measurements == 0
    check(settings)


def test_what_was_chosen_goes_with_its_tenant(settings: Settings, feed: Feed, base: int) -> None:
    choose(settings, "conflicts", "keep")
    choose(settings, "retained", "all", "")
    with closing(connect(settings, "writer", "test")) as connection:
        set_option(connection, "conflicts", "last", tenant="other")
        set_option(connection, "conflicts", "last")
    send(feed, base, 1, 2)
    feed.send(b'{"n":1}', retain=True)
    drained(settings, feed)
    assert counts(settings) == (3, 0, 1)
    delete_tenant(settings, TENANT, requested_by="test")
    assert query(settings, "SELECT tenant_id, name FROM project_option ORDER BY 1") == [("", "conflicts"), ("other", "conflicts")]
    assert query(settings, "SELECT count(*) FROM measurement") == [(0,)]
    send(feed, base, 1, 2)  # the new tenant of that id has none of them
    drained(settings, feed)
    assert stands(settings, base) == [(0, 2, None)]
