"""Which part of the past a repeated audit looks at: little while all is well, and whatever failed until it is mended."""

from typing import Final

LEAST_SECONDS: Final = 3_600.0
MOST_SECONDS: Final = 86_400.0
OVERLAP_SECONDS: Final = 60.0


def window_start(now: float, passed_at: float | None, failed_since: float | None) -> float:
    """The last hour and whatever was committed since the last audit that passed, but no more than a day (seconds since the epoch). One that
    failed keeps its window: it goes on failing until what is lost is restored, or is a day old. `iot audit --since all` sees everything."""
    start = now - MOST_SECONDS
    if failed_since is not None:
        start = failed_since
    elif passed_at is not None:
        start = passed_at - OVERLAP_SECONDS
    return max(now - MOST_SECONDS, min(now - LEAST_SECONDS, start))
