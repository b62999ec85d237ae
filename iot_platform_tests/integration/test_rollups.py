"""Rollups equal what measurement gives, under late data, races, rollbacks and deletions; reckoned anew in Python, bit for bit."""

import json
import random
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import numpy as np
import psycopg2
import pytest
from typer.testing import CliRunner

from iot_platform.cli.errors import CliError
from iot_platform.cli.main import app
from iot_platform.database import connect
from iot_platform.orchestration.rollup_run import evaluate_rollups
from iot_platform.rollups import Rebuild, check, roll_up
from iot_platform.rollups.check import choose_sample, compare
from iot_platform.settings import Settings, exports
from iot_platform.telemetry.drain import rollup_notes
from iot_platform.telemetry.drain.stage import copy
from iot_platform_tests.support.feeds.drain import TOPIC, Feed, check_books, drain, query
from iot_platform_tests.support.feeds.rollups import DAY, HOUR, RollupFeed, Row, days, hours
from iot_platform_tests.support.waiting import eventually

pytestmark = pytest.mark.both_editions

START = datetime(2026, 1, 5, tzinfo=UTC)
EXTREMES = (1.79e308, 1.79e308, -1.79e308, 5e-324, -0.0, 1e290, 1.0000001e290)


@pytest.fixture
def feed(settings: Settings) -> Iterator[RollupFeed]:
    connection = psycopg2.connect(settings.admin_url)
    yield RollupFeed(connection)
    connection.close()


def assert_equal(feed: RollupFeed) -> None:
    expected = hours(feed.measurements())
    assert feed.shown("measurement_1h") == expected
    assert feed.shown("measurement_1d") == days(expected)


def numbers(series: list[int], count: int, span: timedelta, seed: int = 1) -> list[Row]:
    """Distinct times; one row in ten is a text, some numbers are extreme."""
    rng = random.Random(seed)
    rows: list[Row] = []
    for offset in rng.sample(range(int(span.total_seconds())), count):
        kind = rng.random()
        value = None if kind < 0.1 else rng.choice(EXTREMES) if kind < 0.15 else rng.gauss(20, 5)
        rows.append((START + timedelta(seconds=offset), rng.choice(series), value, "off" if value is None else None))
    return rows


@pytest.mark.several_sessions("two sessions at once")
def test_refreshing_waits_for_other_maintenance(settings: Settings) -> None:
    waits = (
        "SELECT FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE NOT l.granted AND l.locktype = 'advisory'"
        " AND a.datname = current_database() AND a.query ~ '^SELECT rollup_refresh'"
    )
    refreshing = threading.Thread(target=query, args=(settings, "SELECT rollup_refresh(1)"))
    with psycopg2.connect(settings.admin_url) as other, other.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(lock_key('maintenance'))")
        refreshing.start()
        while not query(settings, waits):
            assert refreshing.is_alive(), "it ran beside other maintenance"
        other.commit()
    refreshing.join()
    other.close()


def test_late_rows_change_their_buckets_and_nothing_else(feed: RollupFeed) -> None:
    series = feed.series(4)
    feed.insert(numbers(series, 400, 10 * DAY))
    feed.roll_up(START + 8 * DAY + 5 * HOUR)
    assert_equal(feed)
    versions = "SELECT bucket, series_id, xmin::text FROM {} ORDER BY 1, 2"
    before = [set(feed.rows(versions.format(table))) for table in ("measurement_1h_stored", "measurement_1d_stored")]
    late = START + 3 * DAY + 90 * timedelta(minutes=1, microseconds=1)
    feed.insert([(late, series[2], 1e6, None)])
    feed.roll_up(START + 8 * DAY + 5 * HOUR)
    assert_equal(feed)
    after = [set(feed.rows(versions.format(table))) for table in ("measurement_1h_stored", "measurement_1d_stored")]
    changed = [{row[:2] for row in new - old} for old, new in zip(before, after, strict=True)]
    assert changed == [{(START + 3 * DAY + HOUR, series[2])}, {(START + 3 * DAY, series[2])}]


def test_extremes_texts_and_emptied_buckets(feed: RollupFeed) -> None:
    one, two = feed.series(2)
    feed.insert([(START + timedelta(minutes=n), one, value, None) for n, value in enumerate((1.79e308, 1.79e308))])
    feed.insert([(START + HOUR + timedelta(minutes=n), one, value, None) for n, value in enumerate((5e-324, None, 0.0))])
    feed.insert([(START + DAY, two, None, "idle"), (START + DAY + HOUR, two, 1.0, "true"), (START + 2 * DAY, two, 3.0, None)])
    feed.roll_up(START + 2 * DAY)
    assert_equal(feed)
    assert feed.shown("measurement_1h")[START, one] == (2, 2, 1.79e308, 1.79e308, None, None, 1.79e308, 1.79e308)
    feed.remove(one, START, START + DAY)
    feed.remove(two, START + DAY + HOUR, START + 2 * DAY)
    feed.roll_up(START + 2 * DAY)
    assert_equal(feed)
    assert {series for _, series in feed.shown("measurement_1d")} == {two}


def test_a_fresh_value_shows_in_the_current_hour(feed: RollupFeed) -> None:
    (one,) = feed.series(1)
    now = datetime.now(UTC)
    feed.roll_up(now - timedelta(minutes=15))
    feed.insert([(now, one, 7.0, None)])
    assert_equal(feed)
    assert feed.rows("SELECT value_last FROM measurement_1h_named WHERE device_id = 'device'") == [(7.0,)]
    assert feed.rows("SELECT value_last FROM measurement_1d_named WHERE device_id = 'device'") == [(7.0,)]


def test_named_views_say_the_same(feed: RollupFeed) -> None:
    series = feed.series(3)
    feed.insert(numbers(series, 200, 4 * DAY))
    feed.roll_up(START + 2 * DAY + 7 * HOUR)
    for name in ("measurement_1h", "measurement_1d"):
        assert feed.shown(f"{name}_named") == feed.shown(name) != {}
    with feed.connection.cursor() as cursor:  # with a right on the view, and on nothing else
        cursor.execute("CREATE ROLE looks_at_rollups; GRANT USAGE ON SCHEMA public TO looks_at_rollups")
        cursor.execute("GRANT SELECT ON measurement_1h_named, measurement_1d_named TO looks_at_rollups")
        cursor.execute("GRANT looks_at_rollups TO current_user; SET LOCAL ROLE looks_at_rollups")
        cursor.execute("SELECT sum(value_count), (SELECT sum(value_count) FROM measurement_1d_named) FROM measurement_1h_named")
        assert cursor.fetchall() == [(200, 200)]
    feed.connection.rollback()


def test_history_before_the_first_run_is_taken_in_steps(feed: RollupFeed) -> None:
    """A database of an earlier release: months, with a hole of weeks in them; rolled back after every batch, at another size each time."""
    series = feed.series(5)
    feed.insert(numbers(series, 150, 3 * DAY) + [(row[0] - 70 * DAY, *row[1:]) for row in numbers(series, 150, 3 * DAY, 2)])
    assert_equal(feed)  # nothing is stored
    until, steps = START + 3 * DAY, []
    while not steps or steps[-1] != "done":
        feed.advance(until, 1 + len(steps) % 4, commit=False)
        steps.append(feed.advance(until, 1 + len(steps) % 4)["step"])
        if len(steps) % 7 == 0:
            assert_equal(feed)
    assert_equal(feed)
    assert len(steps) < 60  # days without data cost nothing
    assert feed.rows("SELECT threshold, threshold_1d FROM rollup_state") == [(until, until)]


@pytest.mark.several_sessions("two sessions at once")
def test_the_boundary_waits_for_a_drain_in_flight(feed: RollupFeed, settings: Settings) -> None:
    (one,) = feed.series(1)
    feed.roll_up(START)
    drain = connect(settings)
    with drain.cursor() as cursor:
        before = rollup_notes.begin(cursor)
        assert before is not None
        row_time = START + timedelta(minutes=5)
        cursor.execute("INSERT INTO measurement (time, series_id, value) VALUES (%s, %s, 1)", (row_time, one))
        moving = threading.Thread(target=feed.roll_up, args=(START + HOUR,))
        moving.start()
        await_lock(settings)
        assert query(settings, "SELECT notes_below FROM rollup_state") == [(START,)]
        drain.commit()
    moving.join(30)
    drain.close()
    assert query(settings, "SELECT threshold FROM rollup_state") == [(START + HOUR,)]
    assert_equal(feed)


@pytest.mark.several_sessions("two sessions at once")
def test_a_drain_that_waited_for_the_boundary_notes(feed: RollupFeed, settings: Settings) -> None:
    (one,) = feed.series(1)
    feed.roll_up(START)
    with feed.connection.cursor() as cursor:
        cursor.execute("SELECT rollup_advance(1, %s)", (START + HOUR,))  # the lock is held until the commit
    drain = connect(settings)

    def write() -> None:
        times, ids = np.array([int(START.timestamp() * 1e6) + 1]), np.array([one], np.int32)
        with drain.cursor() as cursor:
            before = rollup_notes.begin(cursor)
            cursor.execute("INSERT INTO measurement (time, series_id, value) VALUES (%s, %s, 1)", (START + timedelta(microseconds=1), one))
            if notes := rollup_notes.encoded(ids, times, np.array([True]), before):
                copy(cursor, rollup_notes.COPY, notes)
        drain.commit()

    writing = threading.Thread(target=write)
    writing.start()
    await_lock(settings)
    feed.connection.commit()
    writing.join(30)
    drain.close()
    assert feed.noted() == {(START, one)}
    feed.roll_up(START + HOUR)
    assert_equal(feed)


def await_lock(settings: Settings) -> None:
    """Until a session waits for an advisory lock."""
    waiting = "SELECT count(*) FROM pg_locks JOIN pg_database d ON d.oid = database WHERE locktype = 'advisory' AND NOT granted"
    eventually(lambda: query(settings, waiting + " AND datname = current_database()") == [(1,)])


def test_nothing_older_than_retention_is_computed_again(feed: RollupFeed, settings: Settings) -> None:
    one, two = feed.series(2)
    feed.insert([(START + n * HOUR, series, float(n), None) for n in range(72) for series in (one, two)])
    feed.roll_up(START + 4 * DAY)
    kept = feed.shown("measurement_1h"), feed.shown("measurement_1d")
    mark = START + DAY + 6 * HOUR + timedelta(minutes=30)
    feed.rows("DELETE FROM measurement WHERE time < %s", mark)
    feed.rows("INSERT INTO retention_mark (table_name, removed_before) VALUES ('measurement', %s)", mark)
    feed.insert([(START + timedelta(minutes=1), one, 99.0, None), (START + DAY + 6 * HOUR + timedelta(minutes=45), one, 99.0, None)])
    feed.insert([(START + DAY + 8 * HOUR + timedelta(minutes=1), two, 99.0, None)])
    result = roll_up(settings, until=START + 4 * DAY)
    assert (result.notes, result.discarded, result.complete) == (3, 2, True)
    late = START + DAY + 8 * HOUR, two
    assert {key for key, row in feed.shown("measurement_1h").items() if kept[0][key] != row} == {late}
    assert feed.shown("measurement_1d") == days(feed.shown("measurement_1h"))
    steps = list(Rebuild(settings, START, START + 4 * DAY).steps())
    assert sum(step.changed for step in steps) == 0
    assert max(step.kept_series for step in steps) == 2
    assert {key for key, row in feed.shown("measurement_1h").items() if kept[0][key] != row} == {late}


def test_a_day_that_lost_hours_is_not_computed_again(feed: RollupFeed) -> None:
    (one,) = feed.series(1)
    feed.insert([(START + n * HOUR, one, 1.0, None) for n in range(48)])
    feed.roll_up(START + 2 * DAY)
    before = feed.shown("measurement_1d")
    cut = START + 10 * HOUR
    feed.rows("DELETE FROM measurement WHERE time < %s", cut)
    feed.rows("DELETE FROM measurement_1h_stored WHERE bucket < %s", cut)
    feed.rows("INSERT INTO retention_mark (table_name, removed_before) VALUES ('measurement', %s), ('measurement_1h', %s)", cut, cut)
    feed.insert([(cut + HOUR + timedelta(minutes=5), one, 7.0, None)])
    assert feed.refresh()["changed"] == 1, "the hour is all there: it changes"
    assert feed.shown("measurement_1d") == before


def test_rebuild_repairs_what_somebody_changed(feed: RollupFeed, settings: Settings) -> None:
    series, others = feed.series(3), feed.series(2, tenant="other")
    feed.insert(numbers(series + others, 500, 4 * DAY))
    feed.roll_up(START + 3 * DAY + HOUR)
    feed.rows("UPDATE measurement_1h_stored SET value_sum = 1, value_count = 7 WHERE bucket < %s", START + 2 * DAY)
    feed.rows("INSERT INTO measurement_1d_stored (bucket, series_id, value_count, numbers) VALUES (%s, %s, 1, 0)", START - DAY, series[0])
    feed.rows("DELETE FROM measurement_1d_stored WHERE bucket = %s", START + DAY)
    broken = feed.shown("measurement_1h")
    dry = sum(step.changed for step in Rebuild(settings, START - DAY, START + 9 * DAY, dry_run=True).steps())
    assert feed.shown("measurement_1h") == broken != (right := hours(feed.measurements()))
    list(Rebuild(settings, START - DAY, START + 9 * DAY, tenant="other").steps())
    mine = {key: row for key, row in feed.shown("measurement_1h").items() if key[1] in others}
    assert mine == {key: row for key, row in right.items() if key[1] in others}
    assert feed.shown("measurement_1h") != right
    steps = list(Rebuild(settings, START - DAY, START + 9 * DAY).steps())
    assert steps[-1].part == 1.0
    assert 0 < sum(step.changed for step in steps) < dry
    assert_equal(feed)
    with pytest.raises(LookupError, match="nobody"):
        list(Rebuild(settings, START, START + DAY, tenant="nobody").steps())


def test_a_clock_that_was_ahead_is_put_right(feed: RollupFeed) -> None:
    (one,) = feed.series(1)
    now = datetime.now(UTC)
    ahead = "UPDATE rollup_state SET threshold = %(far)s, threshold_1d = %(far)s, notes_below = %(far)s"
    with feed.connection.cursor() as cursor:
        cursor.execute(ahead, {"far": datetime(now.year + 1, 1, 1, tzinfo=UTC)})
    feed.insert([(now, one, 1.0, None)])
    assert feed.shown("measurement_1h") == {}
    assert feed.advance(now)["step"] == "lowered"
    assert_equal(feed)
    feed.roll_up(now)
    assert_equal(feed)


def test_drained_messages_with_late_ones_among_them(settings: Settings, feed: RollupFeed) -> None:
    """Through Kafka and the writer: 10 % are late, by up to 60 days; rolled up in between, and again after the last drain."""
    rng, source = random.Random(5), Feed(settings)
    count, late_days = (150, 10) if feed.community else (400, 60)  # a chunk a day, which PGlite is slow to make
    now_ms = int(time.time() * 1000)
    total = 0
    for part in range(3):
        for number in range(count):
            age = rng.randrange(late_days * 86_400_000) if rng.random() < 0.1 else rng.randrange(3 * 3_600_000)
            body = f'{{"ts":{now_ms - age},"t":{rng.gauss(20, 5)!r},"on":{"true" if number % 2 else "false"},"mode":"auto","big":1.79e308}}'
            source.send(body.encode(), topic=f"{TOPIC}/device-{rng.randrange(9)}", partition=number % 2)
        source.flush()
        drain(settings)
        result = roll_up(settings)
        total += result.notes
        assert (result.complete, result.notes_left, result.discarded) == (True, 0, 0)
        assert_equal(feed)
        assert part == 0 or result.notes > 40 or feed.community
    assert feed.community or feed.rows("SELECT count(*) FROM measurement WHERE time < (SELECT threshold FROM rollup_state)")[0][0] > 1000
    source.send(f'{{"ts":{now_ms},"t":1.5}}'.encode(), topic=f"{TOPIC}/device-0")
    source.flush()
    drain(settings)
    assert_equal(feed)  # live, without a run
    check_books(settings)


def test_the_check_finds_what_somebody_changed(feed: RollupFeed, settings: Settings) -> None:
    (one,) = feed.series(1)
    now = datetime.now(UTC)
    feed.insert([(now - n * HOUR, one, float(n), None) for n in range(60)])
    assert roll_up(settings).complete
    passed = evaluate_rollups(settings)
    assert passed.passed
    assert passed.metadata["hours_compared"].value >= 24
    feed.insert([(now - 20 * HOUR + timedelta(seconds=1), one, 0.0, None)])
    assert evaluate_rollups(settings).passed  # noted: not wrong, only not yet computed
    feed.rows("TRUNCATE rollup_change")
    failed = evaluate_rollups(settings)
    assert not failed.passed
    assert failed.metadata["differences"].value >= 1
    list(Rebuild(settings, now - 3 * DAY, now).steps())
    assert evaluate_rollups(settings).passed


def test_the_check_bounds_what_it_reads(feed: RollupFeed, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """By measurements, not by series: one that sends often has as many in an hour as another in a year."""
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    feed.insert([(today + timedelta(milliseconds=n), series, float(n), None) for series in feed.series(6) for n in range(20)])
    roll_up(settings)
    for most, compared in ((120, {6}), (60, {3}), (59, {2}), (0, {0, 1})):  # the one that is always taken may be an empty day
        monkeypatch.setattr(check, "MOST_MEASUREMENTS", most)
        found = compare(settings, choose_sample(settings))
        assert found.hours in compared
        assert found.different == 0


def test_the_commands(feed: RollupFeed, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    (one,) = feed.series(1)
    feed.insert([(START + n * HOUR, one, 1.0, None) for n in range(50)])
    for name, value in exports(settings).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("iot_platform.settings.get_settings", lambda: settings)
    runner = CliRunner()
    done = runner.invoke(app, ["rollup", "run", "--json"])
    assert (done.exit_code, json.loads(done.stdout)["rows"]) == (0, 50)
    assert "notes waiting    0" in runner.invoke(app, ["rollup", "status"]).stdout
    right = feed.shown("measurement_1h")
    feed.rows("UPDATE measurement_1h_stored SET value_max = 5 WHERE bucket < %s", START + 3 * HOUR)
    assert feed.shown("measurement_1h") != right
    span = ["rollup", "rebuild", "--from", "2026-01-05", "--to", "2026-01-06"]
    assert "3 buckets would change" in runner.invoke(app, [*span, "--dry-run"]).stdout
    assert "3 buckets changed" in runner.invoke(app, [*span[:3], "0001-01-01", "--to", "9999-12-31T23:59:59"]).stdout
    assert runner.invoke(app, [*span[:3], "0001-01-01T00:00+14:00"]).exit_code == 2
    assert "0 buckets changed" in runner.invoke(app, span).stdout
    assert feed.shown("measurement_1h") == right
    assert isinstance(runner.invoke(app, [*span, "--tenant", "nobody"]).exception, CliError)


def test_late_rows_in_the_middle_of_a_fill(feed: RollupFeed) -> None:
    """Between any two batches of a fill a late row comes for every series, done or not, and is refreshed before the fill goes on."""
    series = feed.series(3)
    feed.insert(numbers(series, 60, 2 * DAY))
    feed.roll_up(START)
    step, count = "", 0
    while step != "done":
        step, count = feed.advance(START + DAY + HOUR, 1)["step"], count + 1
        assert_equal(feed)  # before the late rows of this step refresh what those of the last step should have
        rows = [(START + (7 * count % 30) * HOUR + timedelta(microseconds=count), one, float(count), None) for one in series]
        feed.insert(rows)
        while feed.refresh(2)["notes"]:
            pass
        assert_equal(feed)
    assert count > 10  # hours of a day, hours of the rest, days
