"""Refreshing the Community edition's continuous aggregates: in windows, broken off between them, and never into what retention removed."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg2
import pytest

from iot_platform.rollups import continuous, roll_up
from iot_platform.settings import Settings
from iot_platform_tests.integration.test_rollups import START, assert_equal, numbers
from iot_platform_tests.support.feeds.rollups import DAY, HOUR, RollupFeed, days, hours


@pytest.fixture
def feed(community: Settings) -> Iterator[RollupFeed]:
    connection = psycopg2.connect(community.admin_url)
    yield RollupFeed(connection)
    connection.close()


@pytest.fixture
def before_window(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int], None]], list[int]]:
    """Have something happen before each window of a refresh, with the windows that were; a list that counts them."""
    call = continuous.call

    def arrange(happens: Callable[[int], None]) -> list[int]:
        windows: list[int] = []

        def called(*arguments: Any, **options: Any) -> None:
            happens(len(windows))
            windows.append(1)
            call(*arguments, **options)

        monkeypatch.setattr(continuous, "call", called)
        return windows

    return arrange


def test_history_before_the_first_run_is_taken_in_windows(feed: RollupFeed, community: Settings, before_window: Any) -> None:
    """A database of an earlier release: months, with a hole of weeks in them; broken off after some windows, more of them each time."""
    series = feed.series(5)
    feed.insert(numbers(series, 150, 3 * DAY) + [(row[0] - 70 * DAY, *row[1:]) for row in numbers(series, 150, 3 * DAY, 2)])
    assert_equal(feed)  # nothing is materialized

    def dies(done: int) -> None:
        if done >= budget:
            raise KeyboardInterrupt

    windows = before_window(dies)
    for budget in (1, 6, 9, 100):
        windows.clear()
        try:
            complete = roll_up(community, until=START + 3 * DAY).complete
        except KeyboardInterrupt:
            complete = False
        assert complete == (budget == 100)
        assert_equal(feed)
    assert len(windows) < 20
    assert feed.rows(f"SELECT max(bucket) >= %s FROM {feed.stored('measurement_1d')}", START + 2 * DAY) == [(True,)]


def test_late_rows_between_windows(feed: RollupFeed, community: Settings, before_window: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before every window of a refresh a late row comes for every series, into hours that were refreshed and hours that were not."""
    series = feed.series(3)
    feed.insert(numbers(series, 60, 3 * DAY))
    monkeypatch.setattr(continuous, "_WINDOW", DAY)

    def late(done: int) -> None:
        moment = START + (7 * done % 60) * HOUR + timedelta(microseconds=done)
        feed.insert([(moment, one, float(done), None) for one in series])

    windows = before_window(late)
    assert roll_up(community, until=START + 3 * DAY).complete
    assert len(windows) == 6  # hours of three days, days
    before_window(lambda _: None)
    assert roll_up(community, until=START + 3 * DAY).complete
    assert_equal(feed)


def test_rollups_outlive_their_measurements(feed: RollupFeed, community: Settings) -> None:
    """The refresh never reaches what retention removed: a late row there brings nothing back, and changes no kept bucket."""
    now = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    start = now - 6 * DAY
    one, two = feed.series(2)
    feed.insert([(start + n * HOUR + timedelta(minutes=1), series, float(n), None) for n in range(120) for series in (one, two)])
    assert roll_up(community).complete
    kept = feed.shown("measurement_1h"), feed.shown("measurement_1d")
    assert kept == (hours(feed.measurements()), days(hours(feed.measurements())))
    mark = start + 2 * DAY
    feed.rows("INSERT INTO retention_mark (table_name, removed_before) VALUES ('measurement', %s)", mark)
    feed.rows("SELECT drop_chunks('measurement', older_than => %s::timestamptz)", mark)
    assert min(row[0] for row in feed.measurements()) >= mark
    feed.insert([(start + DAY, one, 1e6, None), (mark + DAY + timedelta(minutes=2), two, 1e6, None)])
    assert roll_up(community).complete
    shown = feed.shown("measurement_1h"), feed.shown("measurement_1d")
    assert {key for key, row in shown[0].items() if kept[0].get(key) != row} == {(mark + DAY, two)}
    assert shown[0].keys() == kept[0].keys()
    assert shown[1] == days(shown[0])
