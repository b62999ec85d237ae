"""Rollups on the Community edition, where they are continuous aggregates: the same claims as in test_rollups, and those about retention."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import psycopg2
import pytest

from iot_platform.rollups import roll_up
from iot_platform.settings import Settings
from iot_platform_tests.fix_community import Pglite, copy_of, drop_database
from iot_platform_tests.integration import test_rollups as claims
from iot_platform_tests.rollup_feed import DAY, HOUR, RollupFeed, days, hours

CASES: tuple[Callable[[RollupFeed], None], ...] = (
    claims.test_extremes_texts_and_emptied_buckets,
    claims.test_named_views_say_the_same,
    claims.test_late_rows_change_their_buckets_and_nothing_else,
    claims.test_a_fresh_value_shows_in_the_current_hour,
)
"""In order of the time up to which they refresh: before it an aggregate computes nothing on the spot, and it never goes back."""


@pytest.fixture(scope="module")
def own(pglite: Pglite) -> Iterator[Settings]:
    """One database for all tests here; each clears it."""
    yield copy_of(pglite, "community_rollups")
    drop_database(pglite, "community_rollups")


@pytest.fixture
def feed(own: Settings) -> Iterator[RollupFeed]:
    connection = psycopg2.connect(own.admin_url)
    found = RollupFeed(connection)
    found.clear()
    connection.autocommit = True  # what was materialized of the removed measurements goes with a refresh of everything only
    with connection.cursor() as cursor:
        for name in ("measurement_1h", "measurement_1d"):
            cursor.execute(f"CALL refresh_continuous_aggregate('{name}', NULL, NULL)")
    connection.autocommit = False
    yield found
    connection.close()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__.removeprefix("test_"))
def test_as_on_apache(feed: RollupFeed, case: Callable[[RollupFeed], None]) -> None:
    assert not feed.tables
    case(feed)


def test_rollups_outlive_their_measurements(feed: RollupFeed, own: Settings) -> None:
    """The refresh never reaches what retention removed: a late row there brings nothing back, and changes no kept bucket."""
    now = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    start = now - 6 * DAY
    one, two = feed.series(2)
    feed.insert([(start + n * HOUR + timedelta(minutes=1), series, float(n), None) for n in range(120) for series in (one, two)])
    assert roll_up(own).complete
    kept = feed.shown("measurement_1h"), feed.shown("measurement_1d")
    assert kept == (hours(feed.measurements()), days(hours(feed.measurements())))
    mark = start + 2 * DAY
    feed.rows("INSERT INTO retention_mark (table_name, removed_before) VALUES ('measurement', %s)", mark)
    feed.rows("SELECT drop_chunks('measurement', older_than => %s::timestamptz)", mark)
    assert min(row[0] for row in feed.measurements()) >= mark
    feed.insert([(start + DAY, one, 1e6, None), (mark + DAY + timedelta(minutes=2), two, 1e6, None)])
    assert roll_up(own).complete
    shown = feed.shown("measurement_1h"), feed.shown("measurement_1d")
    assert {key for key, row in shown[0].items() if kept[0].get(key) != row} == {(mark + DAY, two)}
    assert shown[0].keys() == kept[0].keys()
    assert shown[1] == days(shown[0])
