"""Hours and days (UTC), as the rollups have them."""

from datetime import UTC, datetime, timedelta
from typing import Final

HOUR: Final = timedelta(hours=1)
DAY: Final = timedelta(days=1)


def floor(at: datetime, unit: timedelta) -> datetime:
    """The beginning of its bucket."""
    epoch = datetime.fromtimestamp(0, UTC)
    return epoch + (at - epoch) // unit * unit


def ceiling(at: datetime, unit: timedelta) -> datetime:
    """The beginning of the first bucket that does not begin before it."""
    below = floor(at, unit)
    return below if below == at else below + unit
