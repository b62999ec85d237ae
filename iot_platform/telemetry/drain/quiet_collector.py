"""Python's garbage collector while a drain works: off, but for the moments that the drain chooses."""

import gc
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

IDLE_SECONDS: Final = 10.0
"""Between two collections while nothing is committed."""
BUSY_SECONDS: Final = 30.0
"""The same under load. What circles leave in so long is all that they may cost, however long the shift."""


class QuietCollector:
    """In its block nothing is collected by itself: that walks the large lists of messages again and again, and doubles the cost of
    consuming. What was there before the block is never walked in it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._was_enabled = False
        self._collected = 0.0

    def __enter__(self) -> Self:
        self._was_enabled = gc.isenabled()
        gc.disable()
        gc.freeze()
        self._collected = self._clock()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        gc.unfreeze()
        if self._was_enabled:
            gc.enable()

    def look(self, *, busy: bool) -> bool:
        """Collect if it is time; whether it was. Call it often. `busy`: something was committed just now."""
        if self._clock() - self._collected < (BUSY_SECONDS if busy else IDLE_SECONDS):
            return False
        gc.collect()
        self._collected = self._clock()
        return True
