"""What one device measures, as a plant's devices do: levels that drift, states that last, counters that grow."""

import random
from collections.abc import Sequence
from typing import Any, Final, TypeVar

T = TypeVar("T")
SMALL_RANGE: Final = 50.0
STEP: Final = 1 / 1000
"""Standard deviation of a level's change from one reading to the next, as a share of its range."""
PULL: Final = 1 / 50
"""Share of the way back to its working point that a level goes with each reading."""
CHANGES: Final = 1 / 20
"""Chance that a state is another one at the next reading."""
PRECISE: Final = 1 / 100
"""Share of readings that use all 53 bits of a double, as of devices that do not round."""


class Signals:
    """The signals of one device, by name; each begins with its first reading."""

    __slots__ = ("_last", "_middle")

    def __init__(self) -> None:
        self._last: dict[str, Any] = {}
        self._middle: dict[str, float] = {}

    def reading(self, rng: random.Random, name: str, low: float, high: float) -> float:
        """A quantity within low…high, mostly with one decimal, or two of a small range."""
        value = self._drift(rng, name, low, high)
        return value if rng.random() < PRECISE else round(value, 1 if high - low > SMALL_RANGE else 2)

    def level(self, rng: random.Random, name: str, low: int, high: int) -> int:
        """A quantity in whole numbers within low…high."""
        return round(self._drift(rng, name, low, high))

    def held(self, rng: random.Random, name: str, states: Sequence[T]) -> T:
        """One of the states; the same for many readings."""
        if name not in self._last or rng.random() < CHANGES:
            self._last[name] = rng.choice(states)
        state: T = self._last[name]
        return state

    def counted(self, rng: random.Random, name: str, low: int, high: int, step: int) -> int:
        """A counter that begins within low…high and grows by at most `step` with each reading."""
        value: int = self._last.get(name) or rng.randrange(low, high)
        self._last[name] = value + rng.randrange(step + 1)
        return value

    def _drift(self, rng: random.Random, name: str, low: float, high: float) -> float:
        """A mean-reverting walk about a working point of the device's own."""
        span = high - low
        if name not in self._middle:
            self._middle[name] = self._last[name] = rng.uniform(low + span / 5, high - span / 5)
        last: float = self._last[name]
        value = last + PULL * (self._middle[name] - last) + rng.gauss(0, STEP * span)
        self._last[name] = value = min(high, max(low, value))
        return value
