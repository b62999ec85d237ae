"""Measurements on their way into the table: columns, their order by key, and what may become of each."""

import struct
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from iot_platform.database.copy_binary import Column, Texts
from iot_platform.telemetry.counters import PUNCTUAL_SECONDS
from iot_platform.telemetry.decode import DecodedBatch
from iot_platform.telemetry.drain.catalog import Catalog
from iot_platform.telemetry.drain.plan import Plan
from iot_platform.telemetry.envelope import RETAIN
from iot_platform.telemetry.partitions import FIRST_IMPORT

Bools = npt.NDArray[np.bool_]
Positions = npt.NDArray[np.intp]
Value = tuple[bytes | None, int | None, bytes | None]
"""The double's bits, value_int and value_text: what makes two values the same."""


def value_key(value: float | None, value_int: int | None, value_text: str | None) -> Value:
    """A value as it is stored, so that equal ones are the same: 0 and -0 differ."""
    return None if value is None else struct.pack(">d", value), value_int, None if value_text is None else value_text.encode()


INSERTED, DUPLICATE, CONFLICT, KEPT, REPLACED = range(5)
"""What becomes of a measurement: a row of its own; nothing, the value is there; nothing, another value is there; a row of its own beside
the other value; the other value's place."""
ADDED: Final = (INSERTED, KEPT)
CONFLICTING: Final = (CONFLICT, KEPT, REPLACED)
CHANGED: Final = (INSERTED, KEPT, REPLACED)

MOVED: Final = 1
RETAINED: Final = 2
LATE: Final = 4
"""Bits of measurement.flags."""


@dataclass(slots=True)
class Values:
    """Measurements to write, as columns; `text` and `integer` are positions in texts and ints, -1 for null. None for a mask or for flags:
    not one of them is set."""

    row: npt.NDArray[np.int32]  # record of the batch
    local: npt.NDArray[np.int32]  # decoder's series index
    series: npt.NDArray[np.int32]  # database id
    time: npt.NDArray[np.int64]
    value: npt.NDArray[np.float64]
    valid: Bools
    integer: npt.NDArray[np.int32] | None
    ints: npt.NDArray[np.int64]
    text: npt.NDArray[np.int32] | None
    texts: list[bytes]
    historical: Bools | None = None  # those that are nobody's latest value; None: none is
    received: Bools | None = None  # its time is the receive time of a message that has no place yet: it moves where that is taken
    known: Bools | None = None  # of these: its message was drained before, and has its place if the value is there
    state: Bools | None = None  # of a retained message without a time of its own
    flags: npt.NDArray[np.int16] | None = None
    shifts: dict[int, int] = field(default_factory=dict)  # record → by how many µs its receive time is shifted
    owns_time: bool = False  # else a move copies the times first

    def __len__(self) -> int:
        return len(self.row)

    def columns(self, rows: Positions, with_position: bool = False) -> list[Column]:
        """COPY columns of the given rows, in their order; with `flags` behind value_int where any has some."""
        integer = self.integer[rows] if self.integer is not None else None
        text = self.text[rows] if self.text is not None else None
        valid = self.valid[rows]
        none = np.zeros(len(rows), np.bool_)
        columns = [
            Column("timestamptz", self.time[rows]),
            Column("int4", self.series[rows]),
            Column("float8", self.value[rows], None if valid.all() else valid),
            Column("int8", none, none) if integer is None else Column("int8", self.ints[np.maximum(integer, 0)], integer >= 0),
        ]
        if self.flags is not None:
            columns.append(Column("int2", self.flags[rows], self.flags[rows] != 0))
        columns.append(Column("bytes", none, none) if text is None else Column("bytes", Texts(self.texts, text), text >= 0))
        return [Column("int4", rows), *columns] if with_position else columns

    def parts(self, position: int) -> tuple[float | None, int | None, bytes | None]:
        """One value as its three columns."""
        integer = -1 if self.integer is None else int(self.integer[position])
        text = -1 if self.text is None else int(self.text[position])
        return (
            float(self.value[position]) if self.valid[position] else None,
            int(self.ints[integer]) if integer >= 0 else None,
            self.texts[text] if text >= 0 else None,
        )

    def of(self, position: int) -> Value:
        """One value."""
        value, value_int, value_text = self.parts(position)
        return None if value is None else struct.pack(">d", value), value_int, value_text

    def flag(self, positions: "Positions | list[int]", bit: int) -> None:
        """Set a flag."""
        if self.flags is None:
            self.flags = np.zeros(len(self), np.int16)
        self.flags[positions] |= bit

    def saved(self) -> "tuple[npt.NDArray[np.int64], npt.NDArray[np.int16] | None]":
        """What `restore` takes back to before any move."""
        self.owns_time = False
        return self.time, None if self.flags is None else self.flags.copy()

    def restore(self, saved: "tuple[npt.NDArray[np.int64], npt.NDArray[np.int16] | None]") -> None:
        """Take back what was moved since."""
        self.time, self.flags, self.owns_time = saved[0], None if saved[1] is None else saved[1].copy(), False
        self.shifts.clear()

    def move(self, position: int, time: int) -> None:
        """To another time, and say so. The decoded batch keeps its own."""
        if not self.owns_time:
            self.time, self.owns_time = self.time.copy(), True
        self.time[position] = time
        self.flag([position], MOVED)


def select(plan: Plan, keep: Bools, catalog: Catalog, shift: npt.NDArray[np.int32] | None = None, known: Bools | None = None) -> Values:
    """The measurements of the records to keep. `shift` [n]: by how many µs those that carry the receive time are shifted, -1 where that is
    open (None: everywhere); `known` [n]: records that were drained before, though their shift is not known any more."""
    batch = plan.decoded
    chosen = keep[batch.m_row]
    rows = slice(None) if chosen.all() else np.flatnonzero(chosen)
    local = batch.m_series[rows]
    values = Values(
        row=batch.m_row[rows],
        local=local,
        series=catalog.series_id[local],
        time=batch.m_time[rows],
        value=batch.m_value[rows],
        valid=batch.m_value_valid[rows],
        integer=_positions(batch.m_int_rows, len(batch.m_row), rows),
        ints=batch.m_ints,
        text=batch.m_text[rows] if batch.m_texts else None,
        texts=[text.encode() for text in batch.m_texts],
        historical=_historical(batch, rows),
    )
    _mark_received(plan, keep, values, shift, known)
    late = np.flatnonzero(values.time < plan.records.envelope.received_at[values.row] - PUNCTUAL_SECONDS * 1_000_000)
    if len(late):
        late = late[plan.records.partition[values.row[late]] < FIRST_IMPORT]  # history is not late
    if len(late):
        values.flag(late, LATE)
    return values


def _historical(batch: DecodedBatch, rows: slice | Positions) -> Bools | None:
    if not len(batch.m_historical):
        return None
    marked = np.zeros(len(batch.m_row), np.bool_)
    marked[batch.m_historical] = True
    return marked[rows]


def _mark_received(plan: Plan, keep: Bools, values: Values, shift: npt.NDArray[np.int32] | None, known: Bools | None) -> None:
    """Which measurements carry a receive time. In a message without a time of its own, those at exactly that."""
    untimed = keep & (plan.decoded.time_source == 0)
    if not untimed.any():
        return
    envelope = plan.records.envelope
    received: Bools = values.time == envelope.received_at[values.row]
    if not untimed.all():
        received &= untimed[values.row]
    retained = untimed & envelope.readable & (envelope.flags & RETAIN != 0)
    if retained.any() and (state := received & retained[values.row]).any():
        values.state = state
        values.flag(np.flatnonzero(state), RETAINED)
    if shift is not None:
        for position in np.flatnonzero(received & (shift[values.row] > 0)).tolist():
            values.move(position, int(values.time[position] + shift[values.row[position]]))
        received &= shift[values.row] < 0
    values.received = received
    if known is not None:
        values.known = received & known[values.row]


def _positions(sparse: npt.NDArray[np.int32], count: int, rows: slice | Positions) -> npt.NDArray[np.int32] | None:
    if not len(sparse):
        return None
    positions = np.full(count, -1, np.int32)
    positions[sparse] = np.arange(len(sparse), dtype=np.int32)
    return positions[rows]


def by_key(values: Values) -> tuple[Positions, Bools]:
    """Positions sorted by (series, time), and for each sorted position whether it repeats the key before it; among equal keys
    the order of arrival is kept."""
    if not len(values):
        return np.zeros(0, np.intp), np.zeros(0, np.bool_)
    first = int(values.time.min())
    bits = (int(values.time.max()) - first).bit_length()
    if bits + int(values.series.max()).bit_length() < 63:
        key = (values.series.astype(np.int64) << bits) | (values.time - first)
        order = np.argsort(key)
        repeats = np.append(False, key[order][1:] == key[order][:-1])
        if not repeats.any():
            return order, repeats
        return np.argsort(key, kind="stable"), repeats
    order = np.lexsort((values.time, values.series))
    return order, _repeats(values, order)


def _repeats(values: Values, order: Positions) -> Bools:
    """Of sorted positions, whether each has the key of the one before it."""
    series, time = values.series[order], values.time[order]
    return np.append(np.zeros(min(1, len(order)), np.bool_), (series[1:] == series[:-1]) & (time[1:] == time[:-1]))


def sorted_by_key(values: Values, chosen: Bools | None) -> tuple[Positions, Bools]:
    """As by_key, of the chosen ones (None: all)."""
    order, repeats = by_key(values)
    if chosen is None or not len(order):
        return order, repeats
    order = order[chosen[order]]
    return order, _repeats(values, order)


def has_outcome(outcome: npt.NDArray[np.uint8], codes: tuple[int, ...]) -> Bools:
    """Mask of the measurements with one of these outcomes."""
    return np.isin(np.arange(5), codes)[outcome]
