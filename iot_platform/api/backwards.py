"""Newest first in tables that are ordered by time only: in stretches that grow, so that a page of what is frequent reads little, and one of
what is rare does not read the whole range at once."""

import time
from collections.abc import AsyncIterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Final, LiteralString

from iot_platform.api.pools import Connection
from iot_platform.api.rows import rows

FIRST: Final = timedelta(minutes=10)
LONGEST: Final = timedelta(days=1)
BUDGET_SECONDS: Final = 3.0
"""After so long a page ends with what it has; its cursor says how far it looked."""
_TICK: Final = timedelta(microseconds=1)


async def newest_first(
    connection: Connection, query: LiteralString, values: Mapping[str, Any], *, start: datetime, end: datetime, limit: int
) -> tuple[list[tuple[Any, ...]], datetime | None]:
    """Up to `limit` rows of [start, end), and from where (excluded) to look on if the time was over; None: it was not.

    The query takes low, high and limit, and gives its rows newest first.
    """
    found: list[tuple[Any, ...]] = []
    begun_at = time.monotonic()
    async for low, high in _stretches(start, end):
        found += await rows(connection, query, {**values, "low": low, "high": high, "limit": limit - len(found)})
        if len(found) >= limit:
            return found, None
        if low > start and time.monotonic() - begun_at > BUDGET_SECONDS:
            return found, low
    return found, None


async def _stretches(start: datetime, end: datetime) -> AsyncIterator[tuple[datetime, datetime]]:
    width, high = FIRST, end
    while high > start:
        low = max(start, high - width)
        yield low, high
        width, high = min(width * 3, LONGEST), low


def following(moment: datetime) -> datetime:
    """The next moment that a column of times can hold."""
    return moment + _TICK
