"""How often somebody may ask, and how many wrong passwords a name may get. Counted in this process only."""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

FREE_FAILURES: Final = 5
"""Wrong passwords in a row before a name is locked: for a minute, doubled with each further one."""
FIRST_LOCK_SECONDS: Final = 60
LONGEST_LOCK_SECONDS: Final = 900
MOST_REMEMBERED: Final = 10_000


@dataclass
class _Bucket:
    tokens: float
    at: float


class Buckets:
    """For each asker a bucket that fills by `rate` a second up to `size`; each request takes one."""

    def __init__(self, rate: float, size: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._size, self._clock = rate, size, clock
        self._buckets: OrderedDict[object, _Bucket] = OrderedDict()

    def take(self, who: object) -> float:
        """0, or after how many seconds to ask again."""
        now = self._clock()
        bucket = self._buckets.setdefault(who, _Bucket(self._size, now))
        self._buckets.move_to_end(who)
        if len(self._buckets) > MOST_REMEMBERED:
            self._buckets.popitem(last=False)
        bucket.tokens = min(self._size, bucket.tokens + (now - bucket.at) * self._rate)
        bucket.at = now
        if bucket.tokens < 1:
            return (1 - bucket.tokens) / self._rate
        bucket.tokens -= 1
        return 0

    def forget(self) -> None:
        """Drop those that are full again."""
        now = self._clock()
        for who, bucket in list(self._buckets.items()):
            if bucket.tokens + (now - bucket.at) * self._rate >= self._size:
                del self._buckets[who]


def lock_seconds(failures: int) -> int:
    """For how long a name is locked after so many wrong passwords in a row."""
    return 0 if failures < FREE_FAILURES else min(FIRST_LOCK_SECONDS * 2 ** min(failures - FREE_FAILURES, 10), LONGEST_LOCK_SECONDS)


class Lockout:
    """The lock of names that no user has: it must look as that of users, whose count is in the database."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._names: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def seconds(self, name: str) -> float:
        """For how long the name is still locked."""
        _, until = self._names.get(name, (0, 0.0))
        return max(0.0, until - self._clock())

    def failed(self, name: str) -> None:
        """A wrong password for it."""
        failures = self._names.pop(name, (0, 0.0))[0] + 1
        self._names[name] = (failures, self._clock() + lock_seconds(failures))
        if len(self._names) > MOST_REMEMBERED:
            self._names.popitem(last=False)
