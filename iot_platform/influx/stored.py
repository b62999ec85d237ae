"""Reads measurements as the main store has them now: by keys, or by time."""

from collections.abc import Generator, Iterable
from typing import Final

from psycopg2.extensions import connection as Connection  # noqa: N812
from psycopg2.extensions import cursor as Cursor  # noqa: N812

from iot_platform.database.interval import interval
from iot_platform.influx.keys import Keys, Touched
from iot_platform.influx.lines import Key, Row

CHAIN_US: Final = 1_000_000
"""How far behind a key values are looked for that are kept side by side, one microsecond each."""
FETCH: Final = 20_000

_COLUMNS: Final = "m.series_id, (extract(epoch FROM m.time) * 1000000)::bigint, m.value, m.value_int, m.value_text"
# In both: the times as a range of constants, too, or TimescaleDB would look into every chunk.
_AT: Final = f"""
SELECT {_COLUMNS}
FROM unnest(%s::int[], %s::bigint[]) v (series_id, time)
JOIN LATERAL (
    SELECT m.series_id, m.time, m.value, m.value_int, m.value_text FROM measurement m
    WHERE m.series_id = v.series_id AND m.time = 'epoch'::timestamptz + v.time * interval '1 microsecond'
      AND m.time BETWEEN 'epoch'::timestamptz + %s::interval AND 'epoch'::timestamptz + %s::interval LIMIT 1
) m ON true"""  # noqa: S608 - columns of our own, as below
_CHAINS: Final = f"""
SELECT {_COLUMNS}
FROM unnest(%s::int[], %s::bigint[]) v (series_id, time)
JOIN LATERAL (
    SELECT m.series_id, m.time, m.value, m.value_int, m.value_text FROM measurement m
    WHERE m.series_id = v.series_id AND m.time >= 'epoch'::timestamptz + v.time * interval '1 microsecond'
      AND m.time < 'epoch'::timestamptz + (v.time + {CHAIN_US}) * interval '1 microsecond'
      AND m.time BETWEEN 'epoch'::timestamptz + %s::interval AND 'epoch'::timestamptz + %s::interval
      AND (m.time = 'epoch'::timestamptz + v.time * interval '1 microsecond' OR m.flags & 1 = 1)
) m ON true"""  # noqa: S608
_BETWEEN: Final = f"""
SELECT {_COLUMNS} FROM measurement m
WHERE m.time >= %s AND m.time < %s AND (%s = '' OR m.series_id IN (SELECT s.series_id FROM series s WHERE s.tenant_id = %s))"""  # noqa: S608
_NAMES: Final = "SELECT series_id, device_id, metric, project_id, tenant_id FROM series WHERE series_id = ANY (%s)"


def at(cursor: Cursor, touched: Touched) -> list[Row]:
    """What stands at these keys, each measurement once."""
    found = _look(cursor, _AT, touched.exact, 0)
    if len(touched.chains):
        found = list(dict.fromkeys([*found, *_look(cursor, _CHAINS, touched.chains, CHAIN_US)]))
    return found


def _look(cursor: Cursor, query: str, keys: Keys, further: int) -> list[Row]:
    if not len(keys):
        return []
    edges = interval(keys[:, 1].min()), interval(keys[:, 1].max() + further)
    cursor.execute(query, (keys[:, 0].tolist(), keys[:, 1].tolist(), *edges))
    return list(map(Row._make, cursor.fetchall()))


def between(connection: Connection, begin: object, end: object, tenant: str = "") -> Generator[list[Row], None, None]:
    """Measurements with begin <= time < end (timestamptz), of one tenant or (empty) of all, some thousands at a time. One reading
    transaction, until it is closed or exhausted."""
    cursor = connection.cursor(name="influx_rows")
    try:
        cursor.itersize = FETCH
        cursor.execute(_BETWEEN, (begin, end, tenant, tenant))
        while got := cursor.fetchmany(FETCH):
            yield list(map(Row._make, got))
    finally:
        if not connection.closed:
            connection.rollback()


class Names:
    """Names of series by id, remembered: ids never come back. A series that is gone (its tenant was deleted) has none."""

    def __init__(self) -> None:
        self._known: dict[int, Key] = {}

    def look_up(self, cursor: Cursor, wanted: Iterable[int]) -> dict[int, Key]:
        """All that are known, these among them."""
        if missing := [number for number in set(wanted) if number not in self._known]:
            cursor.execute(_NAMES, (missing,))
            self._known |= {number: (device, metric, project, tenant) for number, device, metric, project, tenant in cursor.fetchall()}
        return self._known

    def forget(self) -> None:
        """After a deletion."""
        self._known.clear()
