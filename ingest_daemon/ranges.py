"""A set of integers kept as ranges: what comes nearly in order takes nearly no memory."""

from bisect import bisect_right
from collections.abc import Iterator


class Ranges:
    """Sorted, disjoint, never adjacent."""

    def __init__(self) -> None:
        self._lows: list[int] = []
        self._highs: list[int] = []
        self.count = 0

    def add(self, number: int) -> None:
        """Add an integer that is not in the set."""
        lows, highs = self._lows, self._highs
        at = bisect_right(lows, number)
        joins_left = at > 0 and highs[at - 1] == number - 1
        joins_right = at < len(lows) and lows[at] == number + 1
        if joins_left and joins_right:
            highs[at - 1] = highs.pop(at)
            del lows[at]
        elif joins_left:
            highs[at - 1] = number
        elif joins_right:
            lows[at] = number
        else:
            lows.insert(at, number)
            highs.insert(at, number)
        self.count += 1

    def remove(self, low: int, high: int) -> None:
        """Take out low..high, all of which are in the set."""
        at = bisect_right(self._lows, low) - 1
        before, after = (self._lows[at], low - 1), (high + 1, self._highs[at])
        kept = [pair for pair in (before, after) if pair[0] <= pair[1]]
        self._lows[at : at + 1] = [pair[0] for pair in kept]
        self._highs[at : at + 1] = [pair[1] for pair in kept]
        self.count -= high - low + 1

    def pairs(self, last: int) -> Iterator[tuple[int, int]]:
        """The ranges up to and including `last`, ascending, each (low, high) inclusive."""
        for low, high in zip(self._lows, self._highs, strict=True):
            if low > last:
                return
            yield low, min(high, last)

    def __contains__(self, number: int) -> bool:
        at = bisect_right(self._lows, number) - 1
        return at >= 0 and number <= self._highs[at]
