"""How much one transaction of maintenance takes: it holds the lock that all maintenance waits for, and should be over in a second."""

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

TARGET_SECONDS: Final = 0.5
FIRST_SLICE: Final = timedelta(hours=1)
LAST_SLICE: Final = timedelta(days=32)


class BatchSize:
    """How much the next batch takes: more while batches are quick, less when they are slow, within bounds."""

    def __init__(self, first: int, most: int, least: int = 1) -> None:
        self.value = first
        self._most, self._least = most, least

    def learn(self, seconds: float) -> None:
        """Note how long a full batch took."""
        if seconds < TARGET_SECONDS / 2:
            self.value = min(self._most, self.value * 2)
        elif seconds > TARGET_SECONDS * 2:
            self.value = max(self._least, self.value // 2)

    def shrink(self) -> bool:
        """After a batch that did not end in time; False if it cannot be smaller."""
        smaller = self.value > self._least
        self.value = max(self._least, self.value // 8)
        return smaller


def in_slices(
    begin: datetime, end: datetime, size: BatchSize, remove: Callable[[datetime, datetime, int], tuple[int, datetime] | None]
) -> None:
    """Go through [begin, end) in slices of time, each in batches of about `size` rows: as long as few rows are found slices get longer, so
    that empty stretches are passed quickly. `remove`: rows of [since, until), so many at most; returns how many, and before when none
    is left; None ends it."""
    done, width = begin, FIRST_SLICE
    while done < end:
        stop, rows, most = min(end, done + width), 0, size.value
        while done < stop:
            started, most = time.monotonic(), size.value
            answer = remove(done, stop, most)
            if answer is None:
                return
            rows, done = answer
            if rows > most // 2:
                size.learn(time.monotonic() - started)
        width = min(LAST_SLICE, width * 4) if rows < most // 4 else max(FIRST_SLICE, width / 4)
