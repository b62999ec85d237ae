"""Receive times: each once, whatever the clock does, and behind those of an earlier process."""

import itertools
import random
from pathlib import Path

import pytest

from ingest_daemon.errors import SettingsError
from ingest_daemon.receive_clock import MAX_AHEAD_US, ReceiveClock
from ingest_daemon.state_dir import file_name

NOW = 1_700_000_000_000_000


class Clock:
    """Shows what the test says."""

    def __init__(self) -> None:
        self.us = NOW

    def __call__(self) -> int:
        return self.us * 1000 + 999


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_burst_within_one_microsecond_gets_as_many(tmp_path: Path, clock: Clock) -> None:
    stamps = ReceiveClock(tmp_path, "c", clock)
    assert [stamps.take(300), stamps.take(1), stamps.take(5)] == [NOW, NOW + 300, NOW + 301]
    clock.us += 400
    assert stamps.take(1) == NOW + 400


def test_random_clocks_never_give_one_twice(tmp_path: Path, clock: Clock) -> None:
    """Small steps back, stops, and restarts in between."""
    choose, given = random.Random(3), list[int]()
    stamps = ReceiveClock(tmp_path, "c", clock)
    for _ in range(3_000):
        clock.us += choose.choice((0, 1, 50, 2_000, -3_000, -MAX_AHEAD_US // 2, MAX_AHEAD_US))
        clock.us = max(clock.us, given[-1] - MAX_AHEAD_US + 1) if given else clock.us
        count = choose.randint(1, 300)
        first = stamps.take(count)
        assert first >= clock.us
        given += range(first, first + count)
        if choose.random() < 0.05:
            if choose.random() < 0.5:
                stamps.close()
            stamps = ReceiveClock(tmp_path, "c", clock)  # what was stored is there without a close, too
    assert all(later > earlier for earlier, later in itertools.pairwise(given))


def test_a_clock_set_back_by_a_year_is_believed(tmp_path: Path, clock: Clock) -> None:
    year = 365 * 86_400_000_000
    stamps = ReceiveClock(tmp_path, "c", clock)
    stamps.take(10)
    clock.us -= year
    assert stamps.take(2) == NOW - year
    assert stamps.take(1) == NOW - year + 2
    clock.us += 2 * year  # wrong the other way, then right again, across restarts
    assert ReceiveClock(tmp_path, "c", clock).take(1) == NOW + year
    clock.us -= year
    assert ReceiveClock(tmp_path, "c", clock).take(1) == NOW


def test_each_client_has_a_file_of_its_own_and_a_bad_one_is_named(tmp_path: Path, clock: Clock) -> None:
    ReceiveClock(tmp_path, "a/b", clock).take(500)
    assert ReceiveClock(tmp_path, "c", clock).take(1) == NOW
    (tmp_path / file_name("stamps", "d")).mkdir()
    with pytest.raises(SettingsError, match=r"IOT_INGEST_STATE_DIR.*stamps-d"):
        ReceiveClock(tmp_path, "d", clock)
