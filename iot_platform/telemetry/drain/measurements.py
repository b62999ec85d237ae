"""Writes measurements so that the first value of (series, time) wins: plain COPY for what is surely new, staging for the rest."""

import io
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt
from psycopg2.errors import UniqueViolation
from psycopg2.extensions import connection as Connection  # noqa: N812
from psycopg2.extensions import cursor as Cursor  # noqa: N812

from iot_platform.database.copy_binary import HEADER, TRAILER, Column, Texts, encode
from iot_platform.telemetry.decode import DecodedBatch
from iot_platform.telemetry.drain import rollup_notes
from iot_platform.telemetry.drain.catalog import NEVER, Catalog

COPY_SIZE: Final = 8 * 1024 * 1024
"""Bytes per read of copy_expert: each read waits up to 5 ms for the interpreter lock that the decoding thread holds."""
INSERTED, DUPLICATE, CONFLICT = 0, 1, 2
UNKNOWN: Final = 2_000_000_000
"""In a look, where series without an id begin: no database has as many."""

_COPY: Final = "COPY measurement (time, series_id, value, value_int, value_text) FROM STDIN (FORMAT binary)"
_STAGE: Final = "COPY pg_temp.measurement_stage (position, time, series_id, value, value_int, value_text) FROM STDIN (FORMAT binary)"
CREATE_STAGE: Final = """
CREATE TEMPORARY TABLE IF NOT EXISTS measurement_stage (
    position integer, time timestamptz, series_id integer, value double precision, value_int bigint, value_text text
) ON COMMIT DELETE ROWS"""
_INSERT: Final = """
INSERT INTO measurement (time, series_id, value, value_int, value_text)
SELECT time, series_id, value, value_int, value_text FROM pg_temp.measurement_stage ORDER BY series_id, time, position
ON CONFLICT DO NOTHING RETURNING series_id, (extract(epoch FROM time) * 1000000)::bigint"""
_COMPARE: Final = """
SELECT s.position, CASE WHEN m.found THEN s.value_int IS NOT DISTINCT FROM m.value_int
    AND s.value_text COLLATE "C" IS NOT DISTINCT FROM m.value_text COLLATE "C"
    AND float8send(s.value) IS NOT DISTINCT FROM float8send(m.value) END
FROM pg_temp.measurement_stage s LEFT JOIN LATERAL (
    SELECT true AS found, m.value, m.value_int, m.value_text FROM measurement m
    WHERE m.series_id = s.series_id AND m.time = s.time
      AND m.time BETWEEN 'epoch'::timestamptz + %s::interval AND 'epoch'::timestamptz + %s::interval LIMIT 1
) m ON true"""
_LATEST: Final = """
INSERT INTO series_latest AS l (time, series_id, value, value_int, value_text)
SELECT time, series_id, value, value_int, value_text FROM pg_temp.measurement_stage ORDER BY series_id
ON CONFLICT (series_id) DO UPDATE
SET time = excluded.time, value = excluded.value, value_int = excluded.value_int, value_text = excluded.value_text
WHERE excluded.time > l.time"""


@dataclass(slots=True)
class Values:
    """Measurements to write, as columns; `text` and `integer` are positions in texts and ints, -1 for null."""

    row: npt.NDArray[np.int32]  # record of the batch
    local: npt.NDArray[np.int32]  # decoder's series index
    series: npt.NDArray[np.int32]  # database id
    time: npt.NDArray[np.int64]
    value: npt.NDArray[np.float64]
    valid: npt.NDArray[np.bool_]
    integer: npt.NDArray[np.int32] | None
    ints: npt.NDArray[np.int64]
    text: npt.NDArray[np.int32] | None
    texts: list[bytes]
    historical: npt.NDArray[np.bool_] | None = None  # those that are nobody's latest value; None: none is

    def __len__(self) -> int:
        return len(self.row)

    def columns(self, rows: npt.NDArray[np.intp], with_position: bool = False) -> list[Column]:
        """COPY columns of the given rows, in their order."""
        integer = self.integer[rows] if self.integer is not None else None
        text = self.text[rows] if self.text is not None else None
        valid = self.valid[rows]
        none = np.zeros(len(rows), np.bool_)
        columns = [
            Column("timestamptz", self.time[rows]),
            Column("int4", self.series[rows]),
            Column("float8", self.value[rows], None if valid.all() else valid),
            Column("int8", none, none) if integer is None else Column("int8", self.ints[np.maximum(integer, 0)], integer >= 0),
            Column("bytes", none, none) if text is None else Column("bytes", Texts(self.texts, text), text >= 0),
        ]
        return [Column("int4", rows), *columns] if with_position else columns


def select(batch: DecodedBatch, keep: npt.NDArray[np.bool_], catalog: Catalog) -> Values:
    """The measurements of the records to keep."""
    chosen = keep[batch.m_row]
    rows = slice(None) if chosen.all() else np.flatnonzero(chosen)
    local = batch.m_series[rows]
    return Values(
        row=batch.m_row[rows],
        local=local,
        series=catalog.series_id[local],
        time=batch.m_time[rows],
        value=batch.m_value[rows],
        valid=batch.m_value_valid[rows],
        integer=_positions(batch.m_int_rows, len(batch.m_row), rows),
        ints=batch.m_ints,
        text=_positions(batch.m_text_rows, len(batch.m_row), rows),
        texts=[text.encode() for text in batch.m_texts],
        historical=_historical(batch, rows),
    )


def _historical(batch: DecodedBatch, rows: slice | npt.NDArray[np.intp]) -> npt.NDArray[np.bool_] | None:
    if not len(batch.m_historical):
        return None
    marked = np.zeros(len(batch.m_row), np.bool_)
    marked[batch.m_historical] = True
    return marked[rows]


def _positions(sparse: npt.NDArray[np.int32], count: int, rows: slice | npt.NDArray[np.intp]) -> npt.NDArray[np.int32] | None:
    if not len(sparse):
        return None
    positions = np.full(count, -1, np.int32)
    positions[sparse] = np.arange(len(sparse), dtype=np.int32)
    return positions[rows]


def by_key(values: Values) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.bool_]]:
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
    series, time = values.series[order], values.time[order]
    return order, np.append(False, (series[1:] == series[:-1]) & (time[1:] == time[:-1]))


class MeasurementWriter:
    """Writes measurements inside the caller's transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.slow_rows = 0

    def write(self, values: Values, catalog: Catalog) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.intp]]:
        """Write all; returns each one's outcome (INSERTED, DUPLICATE, CONFLICT) and the positions that may be the latest of their
        series, one per series."""
        outcome = np.full(len(values), INSERTED, np.uint8)
        order, repeats = by_key(values)
        if not len(order):
            return outcome, order
        known = catalog.latest[values.local[order]]
        new = ~repeats & (values.time[order] > known)
        fast, slow = (order, order[:0]) if new.all() else (order[new], order[~new])
        with self._connection.cursor() as cursor:
            noted_before = rollup_notes.begin(cursor, "SAVEPOINT plain_copy" if len(fast) else "")
            if not self._copy_new(cursor, values, fast):
                fast, slow = order[:0], order
            if len(slow):
                slow = np.sort(slow)
                outcome[slow] = self._stage(cursor, values, slow)
                self.slow_rows += len(slow)
            latest = _last_of_series(values, order[~repeats] if values.historical is None else order[~repeats & ~values.historical[order]])
            # Only what may be newer: ON CONFLICT locks a row even where WHERE leaves it as it is, and a live drain would wait for it.
            latest = latest[values.time[latest] > catalog.latest[values.local[latest]]]
            self._update_latest(cursor, values, latest)
            if notes := rollup_notes.encoded(values.series, values.time, outcome == INSERTED, noted_before):
                copy(cursor, rollup_notes.COPY, notes)
        return outcome, latest

    def _copy_new(self, cursor: Cursor, values: Values, rows: npt.NDArray[np.intp]) -> bool:
        """COPY rows that should be new, behind the savepoint; False, and nothing written, if one was not (another lane was faster)."""
        if not len(rows):
            return True
        try:
            copy(cursor, _COPY, encode(values.columns(rows), len(rows)))
        except UniqueViolation:
            cursor.execute("ROLLBACK TO SAVEPOINT plain_copy")
            return False
        cursor.execute("RELEASE SAVEPOINT plain_copy")
        return True

    def _stage(self, cursor: Cursor, values: Values, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.uint8]:
        """Insert what is not there yet, in order of arrival, and compare the rest with what is; outcomes in the order of `rows`."""
        copy(cursor, _STAGE, encode(values.columns(rows, with_position=True), len(rows)))
        cursor.execute(_INSERT)
        inserted = set(cursor.fetchall())
        same = _compare(cursor, values, rows)
        outcome = np.empty(len(rows), np.uint8)
        for index, row in enumerate(rows.tolist()):
            key = (int(values.series[row]), int(values.time[row]))
            if key in inserted:  # the first of its key, because rows ascend
                inserted.discard(key)
                outcome[index] = INSERTED
            else:
                outcome[index] = DUPLICATE if same[row] else CONFLICT
        return outcome

    def look(self, values: Values) -> npt.NDArray[np.uint8]:
        """What `write` would make of each, as far as the database tells now. Writes nothing; rolls back."""
        outcome = np.full(len(values), INSERTED, np.uint8)
        values = replace(values, series=np.where(values.series == 0, UNKNOWN + values.local, values.series).astype(np.int32))
        order, repeats = by_key(values)
        if len(order):
            with self._connection.cursor() as cursor:
                copy(cursor, _STAGE, encode(values.columns(order, with_position=True), len(order)))
                same = _compare(cursor, values, order)
            self._connection.rollback()
            for row, repeated in zip(order.tolist(), repeats.tolist(), strict=True):
                if same[row] is not None:
                    outcome[row] = DUPLICATE if same[row] else CONFLICT
                elif repeated:
                    outcome[row] = DUPLICATE
        return outcome

    def _update_latest(self, cursor: Cursor, values: Values, rows: npt.NDArray[np.intp]) -> None:
        if len(rows):
            copy(cursor, _STAGE, encode(values.columns(rows, with_position=True), len(rows)))
            cursor.execute(_LATEST)


def _compare(cursor: Cursor, values: Values, rows: npt.NDArray[np.intp]) -> dict[int, bool | None]:
    """Whether the table has the same value at each staged position, None where it has none; empties the stage."""
    window = [f"{int(edge)} microseconds" for edge in (values.time[rows].min(), values.time[rows].max())]
    cursor.execute(_COMPARE, window)
    same = dict(cursor.fetchall())
    cursor.execute("DELETE FROM pg_temp.measurement_stage")
    return same


def _last_of_series(values: Values, order: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Of positions sorted by (series, time) without repeats, the last of each series."""
    series = values.series[order]
    last: npt.NDArray[np.bool_] = np.append(series[1:] != series[:-1], True)
    return order[last]


def note_latest(catalog: Catalog, values: Values, rows: npt.NDArray[np.intp]) -> None:
    """Remember committed times, so that later ones are known to be new."""
    local = values.local[rows]
    catalog.latest[local] = np.maximum(catalog.latest[local], values.time[rows])


def copy(cursor: Cursor, query: str, pieces: list[bytes]) -> None:
    """COPY encoded rows."""
    cursor.copy_expert(query, io.BytesIO(b"".join((HEADER, *pieces, TRAILER))), size=COPY_SIZE)


__all__ = ["CONFLICT", "CREATE_STAGE", "DUPLICATE", "INSERTED", "NEVER", "MeasurementWriter", "Values", "copy", "note_latest", "select"]
