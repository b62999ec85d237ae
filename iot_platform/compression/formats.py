"""Bytes, durations and the forecast as people write them."""

from datetime import timedelta
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from iot_platform.compression.forecast import Forecast

ENOUGH_DAYS: Final = 30
"""A disk that is full earlier is worth a warning: ordering and moving takes weeks."""


def age_text(age: timedelta) -> str:
    """A duration as people write it."""
    hours = age / timedelta(hours=1)
    return f"{hours / 24:g} days" if hours % 24 == 0 else f"{hours:g} hours"


def size(count: float) -> str:
    """Bytes with a unit."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _roughly(time: timedelta) -> str:
    minutes = max(1, round(time / timedelta(minutes=1)))
    return f"{minutes} minutes" if minutes < 120 else f"{minutes // 60} hours"


def outlook_text(outlook: "Forecast") -> str:
    """The forecast in one sentence."""
    rate = "At this rate" if outlook.seen >= timedelta(days=1) else f"At the rate of the first {_roughly(outlook.seen)}"
    most = f"within three years it takes {size(outlook.steady_bytes)} at most"
    if outlook.limit is None:
        return f"{rate}, {most}; {outlook.limit_source}."
    where = f"the limit of {size(outlook.limit)} ({outlook.limit_source})"
    if outlook.days is None:
        return f"{rate}, {where} is not reached: {most}."
    return f"{rate}, {where} is reached in {outlook.days:.0f} days."
