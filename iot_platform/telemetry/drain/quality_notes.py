"""Tells the quality rules where a batch wrote measurements that they would not look for: far from the time of receipt, or replayed."""

from typing import Final

import numpy as np
import numpy.typing as npt
from psycopg2.extensions import cursor as Cursor  # noqa: N812

from iot_platform.database.copy_binary import Column, encode
from iot_platform.telemetry.counters import PUNCTUAL_SECONDS
from iot_platform.telemetry.drain.stage import copy
from iot_platform.telemetry.drain.values import CHANGED, Values, has_outcome

_HOUR_US: Final = 3_600_000_000
_NOTE: Final = "COPY quality_note (time_from, time_to, series_id) FROM STDIN (FORMAT binary)"


def note_unpunctual(cursor: Cursor, values: Values, outcome: npt.NDArray[np.uint8], received_at: npt.NDArray[np.int64] | None) -> None:
    """Write quality_note, inside the caller's transaction. `received_at`: µs, by record of the batch; None notes all that was written."""
    noted = has_outcome(outcome, CHANGED)
    if received_at is not None:
        noted &= np.abs(values.time - received_at[values.row]) > PUNCTUAL_SECONDS * 1_000_000
    rows = np.flatnonzero(noted)
    if not len(rows):
        return
    series, time = values.series[rows], values.time[rows]
    order = np.lexsort((time, series))
    series, time = series[order], time[order]
    hour = time // _HOUR_US
    first = np.flatnonzero(np.append(True, (series[1:] != series[:-1]) | (hour[1:] != hour[:-1])))
    last = np.append(first[1:], len(rows)) - 1
    columns = [Column("timestamptz", time[first]), Column("timestamptz", time[last]), Column("int4", series[first])]
    copy(cursor, _NOTE, encode(columns, len(first)))
