"""Event times as devices write them: one style per device, never the same instant twice, so that (series, time) stays unique."""

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Final

SECOND_US: Final = 1_000_000
MAX_AHEAD_US: Final = 60 * SECOND_US  # a whole-second clock that is asked too often falls back to milliseconds here
LATE_SLOT_US: Final = 61 * SECOND_US
LATE_SLOTS: Final = 4096
LATE_DISTANCE_US: Final = 2 * 3600 * SECOND_US  # clear of every device whose clock is merely slow
MONTH_US: Final = 30 * 86_400 * SECOND_US


def _iso(zone: timezone, separator: str = "T", suffix: str | None = None) -> Callable[[int, random.Random], object]:
    def render(time_us: int, _: random.Random) -> object:
        local_time = (datetime.fromtimestamp(time_us // SECOND_US, UTC) + timedelta(microseconds=time_us % SECOND_US)).astimezone(zone)
        text = local_time.isoformat(sep=separator, timespec="milliseconds")
        return text if suffix is None else text[:-6] + suffix

    return render


# name -> (unit in µs of the precision it writes, how it writes); readers truncate nanoseconds and round fractions of seconds
STYLES: Final[dict[str, tuple[int, Callable[[int, random.Random], object]]]] = {
    "milliseconds": (1000, lambda us, _: us // 1000),
    "seconds": (SECOND_US, lambda us, _: us // SECOND_US),
    "fraction": (1000, lambda us, _: us / SECOND_US),
    "microseconds": (1, lambda us, _: us),
    "nanoseconds": (1, lambda us, rng: us * 1000 + rng.randrange(1000)),
    "digits": (1000, lambda us, _: str(us // 1000)),
    "iso_z": (1000, _iso(UTC, suffix="Z")),
    "iso_offset": (1000, _iso(timezone(timedelta(hours=8)))),
    "iso_space": (1000, _iso(timezone(-timedelta(hours=3, minutes=30)), " ", "-0330")),
}


class DeviceClock:
    """A device's clock: `stamp` gives (what the payload says, the µs it means), strictly increasing per device."""

    __slots__ = ("_last_us", "_late", "_start_us", "_style", "skew_us")

    def __init__(self, style: str, start_us: int, skew_us: int) -> None:
        self._style = style
        self._start_us = start_us
        self._last_us = 0
        self._late = 0
        self.skew_us = skew_us

    def stamp(self, now_us: int, rng: random.Random) -> tuple[object, int]:
        """The next instant at or after `now_us` (plus the skew) that this device has not used."""
        unit, render = STYLES[self._style]
        wanted = now_us + self.skew_us
        if self._last_us + unit > wanted + MAX_AHEAD_US:
            unit, render = STYLES["milliseconds"]
        self._last_us = max(wanted // unit, self._last_us // unit + 1) * unit
        return render(self._last_us, rng), self._last_us

    def repeat(self, rng: random.Random) -> tuple[object, int] | None:
        """The last instant once more (same series and time, other values: a conflict); None before the first."""
        if not self._last_us:
            return None
        return STYLES["microseconds"][1](self._last_us, rng), self._last_us

    def late(self, now_us: int, rng: random.Random) -> tuple[object, int] | None:
        """An unused instant hours to days before the start, now and then a month; None once all are used up, or too old to be accepted."""
        if self._late >= LATE_SLOTS or now_us - self._start_us > MONTH_US:
            return None
        slot = self._late * 1579 % LATE_SLOTS
        self._late += 1
        back = LATE_DISTANCE_US + slot * LATE_SLOT_US + rng.randrange(60) * SECOND_US + (MONTH_US if slot % 16 == 3 else 0)
        time_us = (self._start_us - back) // SECOND_US * SECOND_US
        return STYLES[self._style][1](time_us, rng), time_us
