"""What becomes of a measurement whose series has another value at its time, by the project's option `conflicts`.

- first: nothing; the message keeps it.
- last: it takes the other one's place. Only a drain knows that it is the later one: a replay puts in order what it inserts itself.
- keep: it goes to the next free microsecond, marked MOVED. One that stands there from an earlier time is the same one.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from psycopg2.extensions import cursor as Cursor  # noqa: N812

from iot_platform.telemetry.drain.catalog import Catalog
from iot_platform.telemetry.drain.stage import insert_new, replace_latest, replace_values
from iot_platform.telemetry.drain.stored_values import WINDOW_US, Stored, stored_around
from iot_platform.telemetry.drain.values import CONFLICT, DUPLICATE, INSERTED, KEPT, MOVED, REPLACED, Value, Values
from iot_platform.telemetry.project_options import CONFLICTS, ProjectOptions

Outcome = npt.NDArray[np.uint8]
Key = tuple[int, int]


@dataclass(slots=True)
class _Chain:
    """What stands side by side from the time of a conflict on, as far as it was looked at: a clock that stands still makes long ones."""

    end: int
    kept: set[Value] = field(default_factory=set)

    def pass_over(self, there: Stored) -> None:
        if there.flags & MOVED:
            self.kept.add(there.value)
        self.end = there.time + 1


class Conflicts:
    """Settles the conflicts of one batch, whose other measurements are written."""

    def __init__(self, cursor: Cursor, values: Values, outcome: Outcome, catalog: Catalog, options: ProjectOptions) -> None:
        """`outcome` changes; so do times and flags of measurements that are kept."""
        self._cursor = cursor
        self._values = values
        self._outcome = outcome
        positions = np.flatnonzero(outcome == CONFLICT)
        chosen = catalog.chosen(options, CONFLICTS, values.local[positions]) if len(positions) else []
        self._last = [at for at, value in zip(positions.tolist(), chosen, strict=True) if value == "last"]
        self._keep = [at for at, value in zip(positions.tolist(), chosen, strict=True) if value == "keep"]
        self._windows: dict[tuple[int, int], dict[int, Stored]] = {}

    def settle(self, *, everything: bool) -> None:
        """Write what the options say. `everything`: also in the place of what was stored before the batch."""
        if self._last:
            self._replace(everything)
        waiting = self._keep
        while waiting:
            self._windows.clear()
            waiting = self._insert(self._find(waiting))

    def look(self) -> None:
        """Only find out what would be kept."""
        self._find(self._keep)

    def replaced_latest(self) -> None:
        """Bring series_latest up to date with what was replaced; behind the batch's own update of it."""
        if len(replaced := np.flatnonzero(self._outcome == REPLACED)):
            replace_latest(self._cursor, self._values, replaced)

    def _key(self, at: int) -> Key:
        return int(self._values.series[at]), int(self._values.time[at])

    def _replace(self, everything: bool) -> None:
        """The last of each key that differs from what is stored there."""
        values, outcome = self._values, self._outcome
        wanted = {self._key(at) for at in self._last}
        same_series = np.flatnonzero(np.isin(values.series, np.unique(values.series[self._last]))).tolist()
        last = {key: at for at in same_series if (key := self._key(at)) in wanted}
        if not everything:
            ours = {key for at in same_series if outcome[at] == INSERTED and (key := self._key(at)) in wanted}
            last = {key: at for key, at in last.items() if key in ours}
        winners = np.array(sorted(at for at in last.values() if outcome[at] == CONFLICT), np.intp)
        if len(winners):
            outcome[winners] = REPLACED
            replace_values(self._cursor, values, winners)

    def _find(self, waiting: list[int]) -> list[int]:
        """Give each its place, or find it there; those that have a new one, in the order of arrival."""
        values = self._values
        chains: dict[Key, _Chain] = {}
        placed: list[int] = []
        for at in waiting:
            key, value = self._key(at), values.of(at)
            chain = chains.setdefault(key, _Chain(key[1]))
            while value not in chain.kept and (there := self._at(key[0], chain.end)) is not None:
                chain.pass_over(there)
            if value in chain.kept:
                self._outcome[at] = DUPLICATE
                continue
            there = Stored(chain.end, value, MOVED)
            values.move(at, there.time)
            self._outcome[at] = KEPT
            self._windows[key[0], there.time // WINDOW_US][there.time] = there
            chain.pass_over(there)
            placed.append(at)
        return placed

    def _at(self, series: int, time: int) -> Stored | None:
        window = time // WINDOW_US
        if (found := self._windows.get((series, window))) is None:
            found = self._windows[series, window] = stored_around(self._cursor, series, time)
        return found.get(time)

    def _insert(self, placed: list[int]) -> list[int]:
        """Write them; those whose place somebody else has taken meanwhile."""
        if not placed:
            return []
        inserted = insert_new(self._cursor, self._values, np.array(placed, np.intp))
        return [at for at in placed if self._key(at) not in inserted]
