"""Any interleaving of drains, repeats, late rows, deletions, rollup batches, moves of the thresholds, retention, compression and rollbacks
ends in exact rollups."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import psycopg2
import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from iot_platform.settings import Settings
from iot_platform_tests.support.feeds.direct import PROJECT, DirectFeed, microseconds
from iot_platform_tests.support.feeds.drain import query
from iot_platform_tests.support.feeds.rollups import DAY, HOUR, Bucket, Figures, RollupFeed, days, hours

pytestmark = pytest.mark.both_editions

START = datetime(2026, 1, 5, tzinfo=UTC)
NEVER = datetime(2000, 1, 1, tzinfo=UTC)
SERIES, HOURS = 2, 30

minutes = st.integers(0, HOURS * 60 - 1)
times = st.integers(0, HOURS).map(lambda hour: START + hour * HOUR)
values = st.one_of(st.none(), st.sampled_from([0.5, 1.79e308, -1.79e308, 5e-324, 3.0]))
committed = st.sampled_from([True, True, True, False])
"""False: rolled back, as if the process had died before the commit."""
some_rows = st.lists(st.tuples(minutes, st.integers(0, SERIES - 1), values), min_size=1, max_size=12)


@pytest.fixture
def feed(settings: Settings) -> Iterator[RollupFeed]:
    connection = psycopg2.connect(settings.admin_url)
    yield RollupFeed(connection)
    connection.close()


class Histories(RuleBasedStateMachine):
    """`kept` are the hours that retention let stay when it removed their measurements."""

    feed: ClassVar[RollupFeed]
    settings: ClassVar[Settings]
    compressed: ClassVar[int]

    @initialize(rows=some_rows, until=times)
    def begin(self, rows: list[tuple[int, int, float | None]], until: datetime) -> None:
        self.feed.clear()
        query(
            self.settings,
            "TRUNCATE message, quarantine, ledger, kafka_offset, source, series_latest, accounting_1h, compressed_chunk CASCADE",
        )
        self.writer = DirectFeed(self.settings)
        self.drain([(0, number, 1.0) for number in range(SERIES)])
        self.series = [row[0] for row in query(self.settings, "SELECT series_id FROM series ORDER BY device_id")]
        self.mark = NEVER
        self.kept: dict[Bucket, Figures] = {}
        self.insert(rows, True)
        self.feed.roll_up(until)

    @rule(rows=some_rows, commit=committed)
    def insert(self, rows: list[tuple[int, int, float | None]], commit: bool) -> None:
        rows = list({row[:2]: row for row in rows}.values())
        self.feed.insert(
            [(START + timedelta(minutes=minute), self.series[number], value, None) for minute, number, value in rows], commit=commit
        )

    @rule(rows=some_rows)
    def drain(self, rows: list[tuple[int, int, float | None]]) -> None:
        """Through the decoder and the writer; what is there already is a repeat or a conflict, as replays make them."""
        for minute, number, value in rows:
            time = START + timedelta(minutes=minute)
            payload = {"ts": microseconds(time) // 1000, "m": "off" if value is None else value}
            self.writer.send(START + 2 * DAY, payload, f"{PROJECT}/device-{number}")
        self.writer.flush()

    @rule(number=st.integers(0, SERIES - 1), since=times, length=st.integers(1, 30), commit=committed)
    def remove(self, number: int, since: datetime, length: int, commit: bool) -> None:
        self.feed.remove(self.series[number], since, since + length * HOUR, commit=commit)

    @rule(notes=st.integers(1, 4), commit=committed)
    def refresh(self, notes: int, commit: bool) -> None:
        self.feed.refresh(notes, commit=commit)

    @rule(commit=committed, share=st.sampled_from([0.001, 0.5]))
    def compress(self, commit: bool, share: float) -> None:
        """Community: every chunk is older than the policy says; late rows are merged where they are more than a share."""
        Histories.compressed += self.feed.compress(share, commit=commit)

    @rule(until=times, steps=st.lists(committed, min_size=1, max_size=6), series=st.integers(1, 4))
    def advance(self, until: datetime, steps: list[bool], series: int) -> None:
        for commit in steps:
            self.feed.advance(until, series, commit=commit)

    @rule(since=times)
    def lower(self, since: datetime) -> None:
        self.feed.rows("SELECT rollup_lower(%s)", since)

    @rule(before=times, part=st.integers(0, 59))
    def retain(self, before: datetime, part: int) -> None:
        """As retention must: nothing noted in the range, all of it stored, then mark and remove in one transaction."""
        before += timedelta(minutes=part)
        if before <= self.mark:
            return
        (threshold,) = self.feed.rows("SELECT greatest(threshold, '2000-01-01') FROM rollup_state")[0]
        if before > threshold:
            return
        while self.feed.refresh()["notes"]:
            pass
        shown = self.feed.shown("measurement_1h")
        self.kept |= {key: row for key, row in shown.items() if self.mark <= key[0] < before}
        self.mark = before
        self.feed.rows(
            "INSERT INTO retention_mark (table_name, removed_before) VALUES ('measurement', %(mark)s)"
            " ON CONFLICT (table_name, tenant_id, project_id) DO UPDATE SET removed_before = excluded.removed_before;"
            " DELETE FROM measurement WHERE time < %(mark)s".replace("%(mark)s", f"'{before.isoformat()}'")
        )

    def expected(self) -> dict[Bucket, Figures]:
        here = {key: row for key, row in hours(self.feed.measurements()).items() if key[0] >= self.mark}
        return here | self.kept

    @rule()
    def only_noted_buckets_differ(self) -> None:
        noted = self.feed.noted()
        expected, shown = self.expected(), self.feed.shown("measurement_1h")
        assert {key for key in expected | shown if expected.get(key) != shown.get(key)} <= noted
        noted_days = {(bucket.replace(hour=0), series) for bucket, series in noted}
        by_day, shown_days = days(expected), self.feed.shown("measurement_1d")
        assert {key for key in by_day | shown_days if by_day.get(key) != shown_days.get(key)} <= noted_days

    def teardown(self) -> None:
        if hasattr(self, "series"):
            self.only_noted_buckets_differ()
            self.feed.roll_up(START + 2 * DAY + 5 * HOUR)
            expected = self.expected()
            assert self.feed.shown("measurement_1h") == expected
            assert self.feed.shown("measurement_1d") == days(expected)
            self.writer.close()


def test_any_history_ends_in_exact_rollups(feed: RollupFeed, settings: Settings) -> None:
    Histories.feed, Histories.settings, Histories.compressed = feed, settings, 0
    allowed: dict[str, Any] = {"suppress_health_check": list(HealthCheck), "database": None, "derandomize": True}
    run_state_machine_as_test(Histories, settings=hypothesis_settings(max_examples=25, stateful_step_count=12, **allowed))
    assert not feed.community or Histories.compressed >= 5
