"""Writes measurements: plain COPY for what is surely new, a stage for the rest. No two share series and time."""

from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt
from psycopg2.errors import UniqueViolation
from psycopg2.extensions import connection as Connection  # noqa: N812
from psycopg2.extensions import cursor as Cursor  # noqa: N812

from iot_platform.database.copy_binary import encode
from iot_platform.telemetry.drain import receive_times, rollup_notes, stage, states
from iot_platform.telemetry.drain.catalog import Catalog
from iot_platform.telemetry.drain.conflicts import Conflicts
from iot_platform.telemetry.drain.values import (
    CHANGED,
    CONFLICT,
    DUPLICATE,
    INSERTED,
    KEPT,
    Bools,
    Positions,
    Values,
    has_outcome,
    sorted_by_key,
)
from iot_platform.telemetry.project_options import ProjectOptions

UNKNOWN: Final = 2_000_000_000
"""In a look, where series without an id begin: no database has as many."""

ATTEMPTS: Final = 1_000
"""Each one more means that somebody else committed measurements of the same series and microsecond meanwhile."""

_COPY: Final = "COPY measurement (time, series_id, value, value_int,{flags} value_text) FROM STDIN (FORMAT binary)"
_PLAIN: Final = _COPY.format(flags="")
_FLAGGED: Final = _COPY.format(flags=" flags,")
_SAVEPOINT: Final = "SAVEPOINT measurements"

Outcome = npt.NDArray[np.uint8]
MET: Final = (DUPLICATE, CONFLICT)


class MeasurementWriter:
    """Writes measurements inside the caller's transaction. `is_drain`: what comes later was received later; a replay knows nothing of the
    kind about what is stored. `hopeful`: what is behind the latest measurement of its series is copied as if it were new, and goes the
    slow way only once something was there (history of series that live data has gone on with)."""

    def __init__(self, connection: Connection, options: ProjectOptions, *, is_drain: bool, hopeful: bool = False) -> None:
        self._connection = connection
        self._options = options
        self._is_drain = is_drain
        self._hopes = self._hopeful = hopeful

    def write(self, values: Values, catalog: Catalog) -> tuple[Outcome, Positions]:
        """Write all; returns each one's outcome and the positions that may be the latest of their series, one per series. Afterwards
        `values` has the times and flags that were written, and by how much messages were shifted."""
        outcome = np.full(len(values), INSERTED, np.uint8)
        if not len(values):
            return outcome, np.zeros(0, np.intp)
        with self._connection.cursor() as cursor:
            repeated = states.repeated(cursor, values, catalog, self._options)
            wanted = None if repeated is None else ~repeated
            order, repeats, noted_before = self._insert(cursor, values, catalog, outcome, wanted)
            if repeated is not None:
                outcome[repeated] = DUPLICATE
            conflicts = Conflicts(cursor, values, outcome, catalog, self._options)
            conflicts.settle(everything=self._is_drain)
            if (outcome == KEPT).any():
                order, repeats = sorted_by_key(values, wanted)
            latest = _last_of_series(values, order[~repeats] if values.historical is None else order[~repeats & ~values.historical[order]])
            # Only what may be newer: ON CONFLICT locks a row even where WHERE leaves it as it is, and a live drain would wait for it.
            latest = latest[values.time[latest] > catalog.latest[values.local[latest]]]
            if len(latest):
                stage.update_latest(cursor, values, latest)
            conflicts.replaced_latest()
            if notes := rollup_notes.encoded(values.series, values.time, has_outcome(outcome, CHANGED), noted_before):
                stage.copy(cursor, rollup_notes.COPY, notes)
        return outcome, latest

    def _insert(
        self, cursor: Cursor, values: Values, catalog: Catalog, outcome: Outcome, wanted: Bools | None
    ) -> tuple[Positions, Bools, int | None]:
        """Insert what is wanted (None: all) and compare the rest with what is there; the order, its repeats, and before when the rollups
        want notes. Behind a savepoint wherever another lane may turn out to have been faster: then everything goes the slow way."""
        original, everything, noted_before, guarded = values.saved(), False, None, False
        for _ in range(ATTEMPTS):
            order, repeats, late = _arranged(cursor, values, catalog, wanted, everything)
            if self._hopeful and not everything and values.received is None:
                late = np.zeros(len(values), np.bool_)
            new = ~(repeats | late[order])
            fast, slow = (order, order[:0]) if new.all() else (order[new], order[~new])
            if not everything:
                guarded = bool(len(fast)) or values.received is not None
                noted_before = rollup_notes.begin(cursor, _SAVEPOINT if guarded else "")
            if _copy_new(cursor, values, fast):
                if len(slow):
                    slow = np.sort(slow)
                    outcome[slow] = self._stage(cursor, values, slow)
                if not len(slow) or not receive_times.raced(values, outcome):
                    break
            everything = True
            cursor.execute("ROLLBACK TO SAVEPOINT measurements")
            values.restore(original)
            outcome[:] = INSERTED
        else:
            raise RuntimeError(f"receive times that were free were taken {ATTEMPTS} times in a row")
        if guarded:
            cursor.execute("RELEASE SAVEPOINT measurements")
        self._hopeful = self._hopes and not everything and not has_outcome(outcome, MET).any()
        return order, repeats, noted_before

    def _stage(self, cursor: Cursor, values: Values, rows: Positions) -> Outcome:
        """Insert what is not there yet, in order of arrival, and compare the rest with what is; outcomes in the order of `rows`."""
        stage.fill(cursor, values, rows)
        inserted = stage.insert_staged(cursor)
        same = stage.compare(cursor, values, rows)
        outcome = np.empty(len(rows), np.uint8)
        for index, row in enumerate(rows.tolist()):
            key = (int(values.series[row]), int(values.time[row]))
            if key in inserted:  # the first of its key, because rows ascend
                inserted.discard(key)
                outcome[index] = INSERTED
            else:
                outcome[index] = DUPLICATE if same[row] else CONFLICT
        return outcome

    def look(self, values: Values, catalog: Catalog) -> Outcome:
        """What `write` would make of each, as far as the database tells now. Writes nothing; rolls back."""
        outcome = np.full(len(values), INSERTED, np.uint8)
        values = replace(values, series=np.where(values.series == 0, UNKNOWN + values.local, values.series).astype(np.int32))
        if not len(values):
            return outcome
        with self._connection.cursor() as cursor:
            repeated = states.repeated(cursor, values, catalog, self._options)
            order, repeats, _ = _arranged(cursor, values, catalog, None if repeated is None else ~repeated, everything=True)
            if len(order):
                stage.fill(cursor, values, order)
                same = stage.compare(cursor, values, order)
                first = 0  # of those with one series and time
                for row, again in zip(order.tolist(), repeats.tolist(), strict=True):
                    first = first if again else row
                    if same[row] is not None:
                        outcome[row] = DUPLICATE if same[row] else CONFLICT
                    elif again:
                        outcome[row] = DUPLICATE if values.of(row) == values.of(first) else CONFLICT
            if repeated is not None:
                outcome[repeated] = DUPLICATE
            Conflicts(cursor, values, outcome, catalog, self._options).look()
        self._connection.rollback()
        return outcome


def _arranged(cursor: Cursor, values: Values, catalog: Catalog, wanted: Bools | None, everything: bool) -> tuple[Positions, Bools, Bools]:
    """Sorted by key, with a place for each message without a time of its own; and of which measurements the table may hold the time, or one
    behind it: those that are not behind the latest one that is known. `everything`: of all."""
    order, repeats = sorted_by_key(values, wanted)
    late = _late(values, catalog, everything)
    if receive_times.separate(cursor, values, order, repeats, late):
        return *sorted_by_key(values, wanted), _late(values, catalog, everything)
    return order, repeats, late


def _late(values: Values, catalog: Catalog, everything: bool) -> Bools:
    return np.ones(len(values), np.bool_) if everything else values.time <= catalog.latest[values.local]


def _copy_new(cursor: Cursor, values: Values, rows: Positions) -> bool:
    """COPY rows that should be new; False if one was not (another lane was faster): the transaction is to go back to its savepoint."""
    if len(rows):
        query = _PLAIN if values.flags is None else _FLAGGED
        try:
            stage.copy(cursor, query, encode(values.columns(rows), len(rows)))
        except UniqueViolation:
            return False
    return True


def _last_of_series(values: Values, order: Positions) -> Positions:
    """Of positions sorted by (series, time) without repeats, the last of each series."""
    series = values.series[order]
    last: Bools = np.append(series[1:] != series[:-1], np.ones(min(1, len(order)), np.bool_))
    return order[last]


def note_latest(catalog: Catalog, values: Values, rows: Positions) -> None:
    """Remember committed times, so that later ones are known to be new."""
    local = values.local[rows]
    catalog.latest[local] = np.maximum(catalog.latest[local], values.time[rows])
