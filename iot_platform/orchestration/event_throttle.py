"""Which keys deserve an event now: new ones at once, busy ones at most once per interval, within a time budget."""

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)


@dataclass
class EventThrottle(Generic[Key]):
    """Remembers which keys changed and when each was last written. Times are seconds of any monotonic clock; not for several threads."""

    interval_seconds: float
    _changed: set[Key] = field(default_factory=set)
    _written_at: dict[Key, float] = field(default_factory=dict)

    def touch(self, key: Key) -> None:
        """Note that the key's figures changed."""
        self._changed.add(key)

    def due(self, now: float) -> list[Key]:
        """Changed keys whose event may be written now, never written ones first, then the longest silent ones."""
        ready = [key for key in self._changed if now - self._written_at.get(key, -float("inf")) >= self.interval_seconds]
        return sorted(ready, key=lambda key: self._written_at.get(key, -float("inf")))

    def pending(self) -> list[Key]:
        """Every changed key, due or not, in the same order."""
        return sorted(self._changed, key=lambda key: self._written_at.get(key, -float("inf")))

    def written(self, key: Key, now: float) -> None:
        """Note that the key's event was written."""
        self._changed.discard(key)
        self._written_at[key] = now
