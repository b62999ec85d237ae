"""Ships measurements of the main store to a sink: what it cannot keep is set aside with a reason, the rest is sent until it is there."""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Final

from psycopg2.extensions import connection as Connection  # noqa: N812
from psycopg2.extensions import cursor as Cursor  # noqa: N812

from iot_platform.influx.books import Books, Refusal
from iot_platform.influx.client import InfluxClient, identifier, literal, span
from iot_platform.influx.delivery import Delivered
from iot_platform.influx.errors import InfluxRefusedError
from iot_platform.influx.lines import MOST_TAG_BYTES, TAGS, Key, Row, kinds, line, series_key, tag_value
from iot_platform.influx.sender import Parcel, Sender
from iot_platform.influx.stored import Names
from iot_platform.logs import get_logger
from iot_platform.settings import Settings

POLICY_SECONDS: Final = 300.0
"""How often the server is asked how long it keeps points."""
MARGIN_US: Final = 60_000_000
"""A point that the server would drop within a minute is not sent: the rest of its request would be answered with an error."""
DELETED_AT_ONCE: Final = 200
"""Statements of one query."""
log = get_logger(__name__)

_DURATION: Final = re.compile(r"(\d+)(ns|u|ms|s|m|h|d|w)")
_UNITS_US: Final = {
    "ns": 0,
    "u": 1,
    "ms": 1_000,
    "s": 1_000_000,
    "m": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
    "w": 604_800_000_000,
}


@dataclass(slots=True)
class Shipped:
    """What became of measurements: `written` are there, `refused` are not. `found`: how many there were; those of a deleted tenant are not
    among them."""

    found: int = 0
    written: list[Row] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)


class Shipper:
    """For one sink, over one connection to each side. `client` is used in the sender's thread only."""

    def __init__(self, settings: Settings, connection: Connection, books: Books, client: InfluxClient, sender: Sender) -> None:
        self.names = Names()
        self._measurement = settings.influx_measurement
        self._most_series = settings.influx_max_series
        self._connection = connection
        self._books = books
        self._client = client
        self._sender = sender
        self._before: list[Callable[[], None]] = []
        self._prefixes: dict[int, str] = {}
        self._series_count: int | None = None
        self._keeps_us: int | None = None
        self._asked = float("-inf")

    def ship(self, rows: Sequence[Row], done: Callable[[Shipped], None], *, replaced: bool = False) -> None:
        """Brings them on their way, behind those of earlier calls. `done` is called, by this method, a later call or `flush`, when each
        measurement is there or refused, and those of earlier calls are. `replaced`: one of them may stand in another one's place. Commits
        what it notes before it sends, so between two calls no transaction may be open.

        Raises:
            InfluxConfigError, InfluxUnavailableError, psycopg2.Error: any of what is not done may be there; repeat all of that.
        """
        shipped = Shipped()
        oldest = self._oldest()
        wanted: list[Row] = []
        new: dict[int, int] = {}
        added = 0
        with self._connection.cursor() as cursor:
            names = self.names.look_up(cursor, (row.series_id for row in rows))
            known = self._books.kinds(cursor, {row.series_id for row in rows})
            for row in rows:
                if (key := names.get(row.series_id)) is None:
                    continue
                shipped.found += 1
                if (refusal := self._refusal(row, key, oldest)) is not None:
                    shipped.refused.append(refusal)
                    continue
                before, has = known.get(row.series_id, 0) | new.get(row.series_id, 0), kinds(row)
                if has & ~before:
                    if not before and not self._has_room(cursor, added):
                        words = f"the sink has {self._most_series} series already (IOT_INFLUX_MAX_SERIES)"
                        shipped.refused.append(Refusal(row.series_id, row.time, key[3], "series_limit", words))
                        continue
                    added += not before
                    new[row.series_id] = new.get(row.series_id, 0) | has
                wanted.append(row)
            mixed = [row for row in wanted if replaced and known.get(row.series_id, 0) & ~kinds(row)]
            if new:
                self._series_count = None
                self._books.add_series(cursor, new)
        self._connection.commit()
        if mixed:
            self._make_way(mixed, names)
        self._send(wanted, names, shipped, done)

    def then(self, done: Callable[[], None]) -> None:
        """Call it as ship calls its `done`, without anything to send."""
        self._sender.put(Parcel((), lambda _: done()))

    def flush(self) -> None:
        """Until nothing is under way any more. Raises as ship."""
        self._sender.flush()

    @contextmanager
    def settled(self) -> Iterator[None]:
        """Nothing is under way any more when the block has ended: all is done, or, after an error, given up. In the sink's lock, so that
        nothing old is written when somebody else holds it. Raises as ship."""
        try:
            yield
            self.flush()
        except BaseException:
            self._sender.close()
            raise

    def clear(self, rows: Sequence[Row], begin: datetime, end: datetime) -> None:
        """Before all that the main store has at begin <= time < end of the rows' series is shipped: have removed what it has there of
        series that have, or had, more than one kind of field, so that nothing old stays beside it. Goes out with what is shipped next."""
        common: dict[int, int] = {}
        for row in rows:
            common[row.series_id] = common.get(row.series_id, -1) & kinds(row)
        with self._connection.cursor() as cursor:
            known = self._books.kinds(cursor, common)
            names = self.names.look_up(cursor, common)
        self._connection.rollback()
        mixed = [number for number, kind in common.items() if known.get(number, 0) & ~kind and number in names]
        self._delete([f"{_condition(names[number])} AND {span(begin, end)}" for number in mixed])

    def delete_tenant(self, tenant: str) -> None:
        """Remove a tenant's points. Raises as ship; InfluxRefusedError: this server deletes nothing by InfluxQL (2.x, 3)."""
        condition = f"{identifier('tenant')} = {literal(tag_value(tenant))}"
        self._sender.call(lambda: self._client.delete(condition, self._measurement))

    def forget(self) -> None:
        """Names, after a deletion."""
        self.names.forget()
        self._books.forget()
        self._prefixes.clear()
        self._series_count = None

    def _refusal(self, row: Row, key: Key, oldest: int) -> Refusal | None:
        if row.time < oldest:
            return Refusal(row.series_id, row.time, key[3], "retention", "older than the sink's retention policy keeps")
        if row.series_id not in self._prefixes:
            prefix = series_key(self._measurement, key)
            if len(prefix.encode()) > MOST_TAG_BYTES:
                words = f"its names take {len(prefix.encode())} bytes, a sink takes {MOST_TAG_BYTES}"
                return Refusal(row.series_id, row.time, key[3], "name", words)
            self._prefixes[row.series_id] = prefix
        return None

    def _has_room(self, cursor: Cursor, more: int) -> bool:
        if self._series_count is None:
            self._series_count = self._books.series_count(cursor)
        return self._series_count + more < self._most_series

    def _send(self, rows: list[Row], names: dict[int, Key], shipped: Shipped, done: Callable[[Shipped], None]) -> None:
        prefixes = self._prefixes
        lines = [line(prefixes[row.series_id], row) for row in rows]

        def sent(delivered: Delivered) -> None:
            refused = dict(delivered.refused)
            for position, words in delivered.refused:
                row = rows[position]
                shipped.refused.append(Refusal(row.series_id, row.time, names[row.series_id][3], "server", words))
            shipped.written += [row for position, row in enumerate(rows) if position not in refused] if refused else rows
            done(shipped)

        before, self._before = self._before, []
        self._sender.put(Parcel(lines, sent, before))

    def _make_way(self, rows: list[Row], names: dict[int, Key]) -> None:
        """Points whose series was sent other fields than they have now: a merge would leave the old ones beside the new ones."""
        self._delete([f"{_condition(names[row.series_id])} AND time = {row.time}000" for row in rows])

    def _delete(self, conditions: list[str]) -> None:
        """Points by tags and time. Where a server does not know the statement (2.x, 3), its old fields stay: compare tells."""
        for start in range(0, len(conditions), DELETED_AT_ONCE):
            part = conditions[start : start + DELETED_AT_ONCE]
            text = "; ".join(f"DELETE FROM {identifier(self._measurement)} WHERE {each}" for each in part)  # noqa: S608 - InfluxQL, quoted
            self._before.append(partial(self._run, text))

    def _run(self, statement: str) -> None:
        try:
            self._client.query(statement)
        except InfluxRefusedError as error:
            log.warning("influx deletes no points", sink=self._books.sink, error=str(error))

    def _oldest(self) -> int:
        """Time (µs) before which the sink keeps nothing."""
        if time.monotonic() - self._asked > POLICY_SECONDS:
            self._keeps_us = None
            self._sender.call(self._ask_policy)
            self._asked = time.monotonic()
        return -(1 << 62) if self._keeps_us is None else time.time_ns() // 1000 - self._keeps_us + MARGIN_US

    def _ask_policy(self) -> None:
        try:
            found = self._client.query(f"SHOW RETENTION POLICIES ON {identifier(self._client.target.database)}")
        except InfluxRefusedError:  # not of this version: what it does not keep it will refuse
            return
        for series in found:
            place = {name: index for index, name in enumerate(series.get("columns", []))}
            for values in series.get("values", []):
                wanted = self._client.target.retention_policy
                if values[place["name"]] == wanted or (not wanted and values[place["default"]]):
                    self._keeps_us = duration_us(str(values[place["duration"]])) or None


def _condition(key: Key) -> str:
    """The one series with these names."""
    return " AND ".join(f"{identifier(tag)} = {literal(tag_value(name))}" for tag, name in zip(TAGS, key, strict=True))


def duration_us(text: str) -> int:
    """A duration as InfluxQL writes it (168h0m0s) in µs; 0: for ever."""
    return sum(int(number) * _UNITS_US[unit] for number, unit in _DURATION.findall(text))
