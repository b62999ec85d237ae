"""Notes for the rollups. A transaction that inserts measurements notes which stored hours it changed.

The order matters: shared lock, then look how far hours are noted, then insert. The boundary is moved under the exclusive lock, so every
measurement inserted without a note was committed before the move, and is seen by what is computed after it.
"""

from typing import Final

import numpy as np
import numpy.typing as npt
from psycopg2.extensions import cursor as Cursor  # noqa: N812

from iot_platform.database.copy_binary import Column, encode
from iot_platform.database.locks import lock_key

THRESHOLD_LOCK: Final = "rollup-threshold"
HOUR_US: Final = 3_600_000_000
COPY: Final = "COPY rollup_change (bucket, series_id) FROM STDIN (FORMAT binary)"

# Three statements on purpose: the look must have a snapshot of its own, taken when the lock is held.
_BEGIN: Final = """
SELECT pg_advisory_xact_lock_shared(%s); {}
SELECT CASE WHEN isfinite(notes_below) THEN (extract(epoch FROM notes_below) * 1000000)::bigint END FROM rollup_state"""


def begin(cursor: Cursor, then: str = "") -> int | None:
    """Take the lock, execute a statement (to save its round trip), and return the time (µs) before which inserted measurements must be
    noted; None: none need to. To be called in the transaction of the inserts, before the first of them."""
    cursor.execute(_BEGIN.format(f"{then};" if then else ""), (lock_key(THRESHOLD_LOCK),))
    row = cursor.fetchone()
    if row is None:
        raise LookupError("rollup_state has no row: INSERT INTO rollup_state DEFAULT VALUES")
    return None if row[0] is None else int(row[0])


def encoded(
    series: npt.NDArray[np.int32], time: npt.NDArray[np.int64], inserted: npt.NDArray[np.bool_], before: int | None
) -> list[bytes] | None:
    """The notes of inserted measurements as rows for COPY, each (series, hour) once; None if there is nothing to note."""
    if before is None or not len(time) or int(time.min()) >= before:
        return None
    rows = np.flatnonzero(inserted & (time < before))
    if not len(rows):
        return None
    hour = time[rows] // HOUR_US
    first = int(hour.min())
    span = int(hour.max()) - first + 1  # times of the accepted window: series * span stays far below 2**63
    notes = np.unique(series[rows].astype(np.int64) * span + (hour - first))
    columns = [Column("timestamptz", (notes % span + first) * HOUR_US), Column("int4", (notes // span).astype(np.int32))]
    return encode(columns, len(notes))
