"""Which table answers a question about a range of time."""

from datetime import datetime, timedelta
from typing import Final, Literal

from iot_platform.read.errors import ReadQuestionError

Resolution = Literal["raw", "1h", "1d"]

RAW_SPAN: Final = timedelta(days=2)
HOURS_SPAN: Final = timedelta(days=92)
"""Up to here hours: 2,208 points of a series, about as many as a screen has columns."""


def resolution_for(start: datetime, end: datetime, asked: str = "auto") -> Resolution:
    """`asked`, or for `auto`: measurements up to 2 days, hours up to 92 days, days beyond.

    Raises:
        ReadQuestionError: `asked` is no resolution.
    """
    if asked in ("raw", "1h", "1d"):
        return asked  # type: ignore[return-value]  # mypy does not narrow a str to a Literal
    if asked != "auto":
        raise ReadQuestionError(f"resolution must be auto, raw, 1h or 1d, not {asked!r}")
    span = end - start
    return "raw" if span <= RAW_SPAN else "1h" if span <= HOURS_SPAN else "1d"
