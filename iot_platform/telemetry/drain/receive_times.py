"""Gives every message without a time of its own a microsecond of its own in each of its series.

Receive times are only nearly unique: two daemons of a shared subscription, a clock that was set back, or Kafka's milliseconds where our
header is missing give the same one to several messages. What is at that key then is another message's reading, no conflict. So the
message moves, whole, to the next microsecond at which all of its series are free. The shift is kept with the message, and decoding it
again gives the same places.
"""

import numpy as np
import numpy.typing as npt
from psycopg2.extensions import cursor as Cursor  # noqa: N812

from iot_platform.telemetry.drain.stored_values import WINDOW_US, Stored, stored_around, stored_at
from iot_platform.telemetry.drain.values import CONFLICT, INSERTED, Bools, Positions, Values


def separate(cursor: Cursor, values: Values, order: Positions, repeats: Bools, may_be_stored: Bools) -> bool:
    """Move what stands in another message's way; whether anything moved, so that the order is another one.

    Args:
        cursor: only reads; only where a key can be stored.
        values: their times and flags change, and `shifts`.
        order: positions by (series, time), in the order of arrival among equal ones.
        repeats: of each sorted position whether it has the key before it.
        may_be_stored: [m] whether the table may hold anything at this time of the series, or behind it.
    """
    if values.received is None or not len(order):
        return False
    crowded = order[_crowded(values, order, repeats)]
    late = values.received & may_be_stored
    if not len(crowded) and not late.any():
        return False
    asked = order[late[order]]
    stored = stored_at(cursor, values, asked)
    known = values.known if values.known is not None else np.zeros(len(values), np.bool_)
    in_the_way = [at for at in asked.tolist() if at in stored and not (known[at] and stored[at].value == values.of(at))]
    movers = set(values.row[crowded].tolist()) | set(values.row[in_the_way].tolist())
    if not movers:
        return False
    _Places(cursor, values, order, movers, may_be_stored).settle()
    return bool(values.shifts)


def _crowded(values: Values, order: Positions, repeats: Bools) -> Bools:
    """Of sorted positions, those with a receive time whose key another one of the batch has before them: the first one, or, wherever it
    came, one with a time of its own, which cannot go elsewhere."""
    if values.received is None or not repeats.any():
        return np.zeros(len(order), np.bool_)
    received = values.received[order]
    key = np.cumsum(~repeats) - 1
    with_own = np.bincount(key, weights=~received) > 0
    crowded: Bools = received & (repeats | with_own[key])
    return crowded


class _Series:
    """Of one series, which microseconds are taken, as far as was looked."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.may_be_stored = False  # whether the table has to be asked
        self.stored: dict[int, Stored] = {}
        self.taken_here: set[int] = set()  # by others of this batch
        self._windows: set[int] = set()
        self._behind: dict[int, int] = {}  # a taken microsecond → one behind it, nearer to the first free one

    def take(self, time: int) -> None:
        self.taken_here.add(time)
        self._behind.setdefault(time, time + 1)

    def look(self, cursor: Cursor, time: int) -> None:
        """Know what is stored in the window of this time."""
        window = time // WINDOW_US
        if self.may_be_stored and window not in self._windows:
            self._windows.add(window)
            found = stored_around(cursor, self.number, time)
            self.stored |= found
            for each in found:
                self._behind.setdefault(each, each + 1)

    def free_from(self, time: int) -> int:
        """The first microsecond that is taken by nobody, as far as was looked."""
        passed = []
        while (behind := self._behind.get(time)) is not None:
            passed.append(time)
            time = behind
        for each in passed:
            self._behind[each] = time
        return time


class _Places:
    """Finds the places of the records that move, one after the other in the order of arrival."""

    def __init__(self, cursor: Cursor, values: Values, order: Positions, movers: set[int], may_be_stored: Bools) -> None:
        self._cursor = cursor
        self._values = values
        received = values.received
        assert received is not None  # noqa: S101 - separate() asked
        chosen = np.zeros(len(values), np.bool_)
        chosen[order] = True
        moving = chosen & received & np.isin(values.row, list(movers))
        self._rows: dict[int, list[int]] = {row: [] for row in sorted(movers)}
        for at in np.flatnonzero(moving).tolist():
            self._rows[int(values.row[at])].append(at)
        self._series = {number: _Series(number) for number in np.unique(values.series[moving]).tolist()}
        for number in np.unique(values.series[moving & may_be_stored]).tolist():
            self._series[number].may_be_stored = True
        staying = order[(~moving)[order] & np.isin(values.series[order], list(self._series))]
        for number, time in zip(values.series[staying].tolist(), values.time[staying].tolist(), strict=True):
            self._series[number].take(time)

    def settle(self) -> None:
        """Move all of them."""
        values = self._values
        for row, positions in self._rows.items():
            begin = int(values.time[positions[0]])
            shift = self._shift(positions, begin)
            for at in positions:
                self._series[int(values.series[at])].take(begin + shift)
                if shift:
                    values.move(at, begin + shift)
            if shift:
                values.shifts[row] = shift

    def _shift(self, positions: list[int], begin: int) -> int:
        """The least one at which every series of the message is free."""
        time = begin
        while (free := max(self._free(at, time) for at in positions)) != time:
            time = free
        return time - begin

    def _free(self, at: int, time: int) -> int:
        """From this time on the first one that is free. Of a message that was drained before, the one with its own value is, too."""
        values, series = self._values, self._series[int(self._values.series[at])]
        if values.known is not None and values.known[at]:
            while True:
                series.look(self._cursor, time)
                there = series.stored.get(time)
                if time not in series.taken_here and (there is None or there.value == values.of(at)):
                    return time
                time += 1
        while True:
            series.look(self._cursor, time)
            free = series.free_from(time)
            if free // WINDOW_US == time // WINDOW_US:
                return free
            time = free  # in a window that was not looked at yet


def raced(values: Values, outcome: npt.NDArray[np.uint8]) -> bool:
    """Whether somebody else took a receive time since it was looked at."""
    if values.received is None:
        return False
    lost = values.received & (outcome != INSERTED)
    if values.known is not None:
        lost &= ~values.known | (outcome == CONFLICT)
    return bool(lost.any())
