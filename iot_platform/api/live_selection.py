"""The latest values of what some viewers look at, and which of them changed since each viewer's last event.

A selection is compared with what the database has, row by row, each time the platform has committed something. Each row that is new gets
the next number of the process; a viewer is sent the rows above the number that it has seen. So a viewer that is slow, or was away, gets
each series' newest value once, and nothing has to be kept for it but that number.
"""

import asyncio
import itertools
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

MOST_ROWS: Final = 2000
"""Of one event; what is left comes with the next."""
COLUMNS: Final = ("project", "device", "metric", "time", "value", "value_text", "flags")
Key = tuple[str, str, str]
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(tuple[str, str, str, int, float | None, str | None, int | None]).decode


@dataclass
class Selection:
    """What viewers of one tenant look at: all, a project, or a device of it. `lines`: the rows as the database wrote them; `changes`: each
    series' row and number, in order of number; `since`: the number before which this selection knows nothing."""

    numbers: Iterator[int]
    since: int = 0
    lines: frozenset[str] = frozenset()
    changes: OrderedDict[Key, tuple[int, tuple[Any, ...]]] = field(default_factory=OrderedDict)
    number: int = 0
    generation: int = 0
    loaded: bool = False
    position: str = ""
    committed_at: str | None = None
    _turn: "asyncio.Future[None] | None" = None
    _encoded: dict[int, tuple[int, bytes]] = field(default_factory=dict)

    def take(self, text: str | None, position: str, committed_at: str | None) -> bool:
        """What the database has now, one row a line, read after `position`. Whether anything changed."""
        lines = frozenset(text.split("\n")) if text else frozenset()
        self.position = position
        if lines == self.lines and self.loaded:
            return False
        new, gone = lines - self.lines, self.lines - lines
        rows = [_decode(line) for line in new]
        keys = {row[:3] for row in rows}
        if any(_decode(line)[:3] not in keys for line in gone):  # series were deleted: the page must begin anew
            self.generation += 1
        for key in {_decode(line)[:3] for line in gone} - keys:
            self.changes.pop(key, None)
        rows.sort(key=lambda row: row[3])
        for row in rows:
            self.number = next(self.numbers)
            self.changes[row[:3]] = (self.number, row)
            self.changes.move_to_end(row[:3])
        self.lines, self.committed_at = lines, committed_at
        self._encoded.clear()
        if not self.loaded:
            self.loaded = True
            self.number = self.since = self.number or next(self.numbers)
        return True

    def wake(self) -> None:
        """Let every viewer look again."""
        turn, self._turn = self._turn, None
        if turn is not None and not turn.done():
            turn.set_result(None)

    async def turn(self) -> None:
        """Until `wake`; one future for all viewers."""
        if self._turn is None or self._turn.done():
            self._turn = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._turn)

    def after(self, number: int) -> tuple[int, bytes] | None:
        """The rows above a number as one event, and the number that its viewer has seen then; None: there are none. Of the oldest changes
        first, at most MOST_ROWS."""
        if number >= self.number:
            return None
        if (known := self._encoded.get(number)) is None:
            newer = list(itertools.takewhile(lambda change: change[0] > number, reversed(self.changes.values())))
            newer.reverse()
            part = newer[:MOST_ROWS]
            if not part:
                return None
            seen = part[-1][0]
            rows = [row for _, row in part]
            columns = {name: [row[place] for row in rows] for place, name in enumerate(COLUMNS)}
            columns["time"] = [micros // 1000 for micros in columns["time"]]
            known = self._encoded[number] = (seen, _encode({"columns": columns, "committed_at": self.committed_at}))
        return known
