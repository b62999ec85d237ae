"""Retained messages without a time of their own are states: the broker sends them again with each new subscription, whenever they were set.

Where the project's option `retained` is `changes`, such a reading is stored only if it differs from the one of its series that is the last
at or before its time. That is so at any later decoding, too: what it repeated then, it repeats.
"""

import numpy as np
from psycopg2.extensions import cursor as Cursor  # noqa: N812

from iot_platform.telemetry.drain.catalog import Catalog
from iot_platform.telemetry.drain.stored_values import Stored, latest_of, stored_before
from iot_platform.telemetry.drain.values import Bools, Value, Values, sorted_by_key
from iot_platform.telemetry.project_options import RETAINED, ProjectOptions


def repeated(cursor: Cursor, values: Values, catalog: Catalog, options: ProjectOptions) -> Bools | None:
    """Mask of the measurements that only repeat a state; None: there are none. Only reads."""
    if values.state is None:
        return None
    states = np.flatnonzero(values.state)
    chosen = catalog.chosen(options, RETAINED, values.local[states])
    states = states[[value == "changes" for value in chosen]]
    if not len(states):
        return None
    found = np.zeros(len(values), np.bool_)
    found[_repeating(values, set(states.tolist()), _stored(cursor, values, states.tolist()))] = True
    return found if found.any() else None


def _stored(cursor: Cursor, values: Values, states: list[int]) -> dict[int, Stored]:
    """For each state the stored measurement before it. Nearly always that is the latest of its series."""
    latest = latest_of(cursor, set(values.series[states].tolist()))
    behind = {at: latest[int(values.series[at])] for at in states if int(values.series[at]) in latest}
    not_behind = [at for at, stored in behind.items() if stored.time > values.time[at]]
    before = stored_before(cursor, values, not_behind)
    return {at: stored for at, stored in behind.items() if stored.time <= values.time[at]} | before


def _repeating(values: Values, states: set[int], stored: dict[int, Stored]) -> list[int]:
    """Those states that equal what is before them, in the table or in the batch, whichever is nearer."""
    order, _ = sorted_by_key(values, np.isin(values.series, np.unique(values.series[list(states)])))
    found: list[int] = []
    series, time, here = -1, 0, None
    for at in order.tolist():
        if (number := int(values.series[at])) != series:
            series, here = number, None
        value: Value = values.of(at)
        if at in states:
            there = stored.get(at)
            before = here if here is not None and (there is None or time >= there.time) else there.value if there is not None else None
            if before == value:
                found.append(at)
                continue
        time, here = int(values.time[at]), value
    return found
