"""How often somebody may ask (counted in this process only), and how many wrong passwords a name may get (counted in the database)."""

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
