"""How long no message is worth saying: learnt from pauses at the same time of day, kept over restarts, or set."""

from pathlib import Path

import pytest

from ingest_daemon.silence import LEAST_SECONDS, Silence

HOUR, DAY = 3600.0, 86_400.0


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def wall(self) -> float:
        return 1_800_000_000.0 - 1_800_000_000.0 % DAY + self.now  # begins at midnight


@pytest.fixture
def clock() -> Clock:
    return Clock()


def silence(tmp_path: Path, clock: Clock, seconds: float | None = None) -> Silence:
    return Silence(seconds, tmp_path / "rhythm", clock, clock.wall)


def one_day(found: Silence, clock: Clock, day: int) -> None:
    """A message every minute from 6 to 20 o'clock."""
    clock.now = day * DAY + 6 * HOUR
    while clock.now < day * DAY + 20 * HOUR:
        found.heard()
        clock.now += 60


def test_a_plant_that_rests_at_night(tmp_path: Path, clock: Clock) -> None:
    found = silence(tmp_path, clock)
    for day in (0, 1):
        one_day(found, clock, day)
        found.keep()
    again = silence(tmp_path, clock)  # a restart
    again.heard()
    clock.now = 2 * DAY + 5 * HOUR
    assert again.seconds == pytest.approx(9 * HOUR)
    assert again.notice is None  # the night before was ten hours
    one_day(again, clock, 2)
    clock.now = 3 * DAY + 17 * HOUR
    assert "learnt" in str(again.notice)  # more than twice the night
    assert again.problem is None
    again.heard()
    clock.now += LEAST_SECONDS + 1
    assert "10 minutes" in str(again.notice)  # in the afternoon ten minutes are long


def test_without_a_past_ten_minutes_count(tmp_path: Path, clock: Clock) -> None:
    found = silence(tmp_path, clock)
    clock.now = LEAST_SECONDS
    assert found.notice is None
    clock.now += 1
    assert "`iot doctor`" in str(found.notice)
    found.deaf()  # another problem, which says so itself
    assert found.notice is None


def test_a_pause_that_a_reconnection_ended_is_not_learnt(tmp_path: Path, clock: Clock) -> None:
    found = silence(tmp_path, clock)
    found.heard()
    clock.now = 2 * HOUR
    found.deaf()
    clock.now += 1
    found.heard()
    assert found.after_seconds == LEAST_SECONDS


def test_what_is_set_makes_the_daemon_not_ready(tmp_path: Path, clock: Clock) -> None:
    found = silence(tmp_path, clock, 30)
    clock.now = 31
    assert "IOT_INGEST_SILENT_SECONDS" in str(found.problem)
    assert found.notice is None


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"x": 1}', '{"1": "a"}'])
def test_a_damaged_file_is_learnt_anew(tmp_path: Path, clock: Clock, damage: str) -> None:
    (tmp_path / "rhythm").write_text(damage)
    found = silence(tmp_path, clock)
    assert found.after_seconds == LEAST_SECONDS
    found.heard()
    clock.now = HOUR
    found.heard()
    found.keep()
    assert silence(tmp_path, clock).after_seconds == 2 * HOUR


def test_what_is_older_than_eight_days_is_forgotten(tmp_path: Path, clock: Clock) -> None:
    found = silence(tmp_path, clock)
    clock.now = HOUR
    found.heard()
    clock.now = 10 * DAY
    found.deaf()
    assert found.after_seconds == LEAST_SECONDS
    found.heard()
    clock.now += 100
    found.heard()
    found.keep()
    assert (tmp_path / "rhythm").read_text().count(":") == 1
