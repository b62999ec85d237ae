"""Shapes to blocks of measurements: who sent it, when, and a column of values for each leaf."""

from collections.abc import Sequence
from itertools import chain
from typing import Any, cast

import numpy as np

from iot_platform.telemetry.decode.clocks import NO_TIME, clock_column, in_window
from iot_platform.telemetry.decode.digits import may_lose_digits
from iot_platform.telemetry.decode.document import finite_number
from iot_platform.telemetry.decode.limits import MAX_WINDOW_US
from iot_platform.telemetry.decode.names import UNNAMED, Names, Topic
from iot_platform.telemetry.decode.result import Block, Bools, Int32, Int64
from iot_platform.telemetry.decode.rules import DecodeRules, Pointer
from iot_platform.telemetry.decode.scalars import Values, value_column
from iot_platform.telemetry.decode.shapes import ARRAY, ODD, POINTS, Shape

_CLOCK_KINDS = {int, float, str}
_NAME_KINDS = {str, int}
_NONE = type(None)


class Columns:
    """Decodes the shapes of one batch. What it can't decode with certainty is marked in `plain`."""

    def __init__(
        self, rules: DecodeRules, names: Names, topics: Sequence[Topic | None], payloads: Sequence[bytes], received_at: Int64
    ) -> None:
        size = len(topics)
        self.rules = rules
        self.names = names
        self.topics = cast(Sequence[Topic], topics)  # shapes hold only records whose topic is known
        self.payloads = payloads
        self.received_at = received_at
        self.blocks: list[Block] = []
        self.source = np.full(size, -1, np.int32)
        self.timed = np.zeros(size, np.bool_)  # the message itself has a time
        self.plain = (received_at > 2 * MAX_WINDOW_US) | (received_at < -2 * MAX_WINDOW_US)  # no clock says so: sums would overflow
        self.pointed = np.zeros(size, np.bool_)  # has points, so names are not unique by shape
        self.own_times = np.zeros(size, np.int32)  # measurements with a time of their own
        distinct = [topic for topic in set(topics) if topic is not None]
        self.past = {topic.past_us for topic in distinct} or {rules.past_us}
        self.has_numbers_in_strings = bool(rules.numbers_in_strings) and any(topic.numbers_in_strings for topic in distinct)

    def shape(self, shape: Shape, device_in_topic: bool) -> None:
        """Decode the records of one shape, all of whose topics name a device, or none."""
        rows = np.array(shape.rows, np.int32)
        used: dict[int, Bools] = {}
        devices = None if device_in_topic else self._devices(shape, rows, used)
        sources = self.names.source_column(list(map(self.topics.__getitem__, shape.rows)), devices)
        self.plain[rows[sources == UNNAMED]] = True
        if sources.max() == UNNAMED:
            return
        times = self._times(shape, rows, used)
        self.source[rows] = sources
        emitted = [at for at, kinds in enumerate(shape.kinds) if kinds != {_NONE} and not (at in used and used[at].all())]
        fields = [at for at in emitted if shape.lists.get(at) not in (POINTS, ODD)]
        layout = self.names.layout(tuple(".".join(shape.paths[at]) for at in fields))
        no_object = any(not shape.paths[at] for at in fields)  # the document itself is an array, but no list of points
        if no_object or not layout.sound or any(shape.lists.get(at) == ODD for at in emitted):
            self.plain[rows] = True
            return
        if any(shape.lists.get(at) == ARRAY for at in fields):
            self.plain[rows[[may_lose_digits(self.payloads[row]) for row in shape.rows]]] = True
        series = self.names.series_table(layout, np.where(sources == UNNAMED, sources.max(), sources))
        series_of = dict(zip(fields, series.T, strict=True))
        for at in emitted:
            if at not in series_of:
                self._points(shape.columns[at], rows, sources, times)
            elif (values := value_column(*self._numeric(shape.columns[at], shape.kinds[at], shape.rows))) is not None:
                self._field(values, rows, series_of[at], times, used.get(at))

    def _numeric(self, column: Sequence[Any], kinds: set[type], rows: Sequence[int]) -> tuple[Sequence[Any], set[type]]:
        """The column, with its strings that spell numbers as numbers where the project says so, and its types."""
        if not self.has_numbers_in_strings or str not in kinds:
            return column, kinds
        column = [
            _number(value) if type(value) is str and self.topics[row].numbers_in_strings else value
            for value, row in zip(column, rows, strict=True)
        ]
        return column, set(map(type, column))

    def _field(self, values: Values, rows: Int32, series: Int32, times: Int64, used: Bools | None) -> None:
        if values.odd is not None:
            self.plain[rows[values.odd]] = True
        present = values.present
        if used is not None:
            present = ~used if present is None else present & ~used
        block = Block(rows, series, times, values.value, values.valid, values.text, values.texts)
        self.blocks.append(block if present is None else block.only(present))

    def _devices(self, shape: Shape, rows: Int32, used: dict[int, Bools]) -> Sequence[str] | None:
        """The device that each payload names, "" for none; marks the fields that named it as used."""
        found: list[str | None] | None = None
        for pointer in self.rules.device_pointers:
            if pointer not in shape.paths:
                continue
            at = shape.paths.index(pointer)
            column, kinds = shape.columns[at], shape.kinds[at]
            if found is None and kinds == {str}:
                used[at] = np.ones(len(rows), np.bool_)
                return column
            if float in kinds:  # only the source shows its digits
                self.plain[rows[[type(value) is float for value in column]]] = True
            if kinds & _NAME_KINDS:
                found = found or [None] * len(rows)
                used[at] = _take_names(column, found)
        return None if found is None else [name or "" for name in found]

    def _times(self, shape: Shape, rows: Int32, used: dict[int, Bools]) -> Int64:
        """The time of each message; marks the fields that gave it as used."""
        received = self.received_at[rows]
        times = np.full(len(rows), NO_TIME, np.int64)
        timed = np.zeros(len(rows), np.bool_)
        for pointer in self.rules.time_pointers:
            if pointer not in shape.paths or timed.all():
                continue
            at = shape.paths.index(pointer)
            takes = ~timed
            if _NONE in shape.kinds[at]:
                takes &= np.array([value is not None for value in shape.columns[at]], np.bool_)
            self._clock(shape.columns[at], takes, times)
            timed |= takes
            used[at] = used[at] | takes if at in used else takes
        inside = in_window(times, received, self._past(rows), self.rules.future_us)
        self.plain[rows[timed & ~inside]] = True
        self.timed[rows] = timed
        return np.where(timed, times, received)

    def _past(self, rows: Int32) -> int | Int64:
        """How long before receive time each record may be; one number where it is the same for all of the batch."""
        if len(self.past) == 1:
            return next(iter(self.past))
        return np.array([self.topics[row].past_us for row in rows.tolist()], np.int64)

    def _clock(self, column: Sequence[Any], takes: Bools, times: Int64) -> None:
        """Write the times of the values that are taken."""
        if takes.all():
            times[:] = clock_column(column, self.rules.zone)
        elif takes.any():
            at = np.flatnonzero(takes)
            times[at] = clock_column([column[i] for i in at.tolist()], self.rules.zone)

    def _points(self, lists: Sequence[list[dict[str, Any]]], rows: Int32, sources: Int32, times: Int64) -> None:
        """All points of a column of lists of points: one block, ordered by record and position."""
        counts = np.fromiter(map(len, lists), np.int64, len(lists))
        items = list(chain.from_iterable(lists))
        members = set(chain.from_iterable(items))
        at = np.repeat(np.arange(len(lists)), counts)
        row = rows[at]
        self.pointed[rows] = True
        values_raw = [item["value"] for item in items]
        kinds = set(map(type, values_raw))
        if kinds & {dict, list}:  # nested points and objects: the plain decoder's
            nested = [type(value) is dict or type(value) is list for value in values_raw]
            self.plain[row[nested]] = True
            values_raw = [None if is_nested else value for is_nested, value in zip(nested, values_raw, strict=True)]
            kinds = kinds - {dict, list} | {_NONE}
        values = value_column(*self._numeric(values_raw, kinds, row.tolist()))
        if values is None:
            return
        if values.odd is not None:
            self.plain[row[values.odd]] = True
        present = np.ones(len(items), np.bool_) if values.present is None else values.present
        own, timed = self._point_times(items, members, row)
        inside = in_window(own, self.received_at[row], self._past(row), self.rules.future_us)
        self.plain[row[timed & ~inside & present]] = True
        series = self._point_series(items, members, row, sources[at])
        self.plain[row[(series == UNNAMED) & present]] = True
        self.own_times += np.bincount(row[timed & present], minlength=len(self.own_times)).astype(np.int32)
        block = Block(row, series, np.where(timed, own, times[at]), values.value, values.valid, values.text, values.texts)
        self.blocks.append(block.only(present) if values.present is not None else block)

    def _point_times(self, items: Sequence[dict[str, Any]], members: set[str], row: Int32) -> tuple[Int64, Bools]:
        """Points' own times, and which points have one."""
        own = np.full(len(items), NO_TIME, np.int64)
        timed = np.zeros(len(items), np.bool_)
        for column in self._point_columns(self.rules.time_pointers, items, members, row):
            takes = ~timed
            if None in column:
                takes &= np.array([value is not None for value in column], np.bool_)
            self._clock(column, takes, own)
            timed |= takes
        return own, timed

    def _point_columns(
        self, pointers: Sequence[Pointer], items: Sequence[dict[str, Any]], members: set[str], row: Int32
    ) -> list[list[Any]]:
        """What each pointer finds in the points; points with nested members that a pointer may mean are the plain decoder's."""
        columns = []
        for pointer in pointers:
            if pointer[0] not in members:
                continue
            if len(pointer) > 1:
                self.plain[row[[pointer[0] in item for item in items]]] = True
            else:
                columns.append([item.get(pointer[0]) for item in items])
        return columns

    def _point_series(self, items: Sequence[dict[str, Any]], members: set[str], row: Int32, sources: Int32) -> Int32:
        """Series of each point, of the message's device unless the point names one that may differ."""
        metrics: list[Any] = [item.get("metric") for item in items]
        if set(map(type, metrics)) != {str}:
            metrics = [_metric(metric, item) for metric, item in zip(metrics, items, strict=True)]
        owners = self.names.owners(sources.tolist())
        devices: list[str | None] = [None] * len(items)
        for column in self._point_columns(self.rules.device_pointers, items, members, row):
            self.plain[row[[type(value) is float for value in column]]] = True
            _take_names(column, devices)
        if any(device is not None for device in devices):
            owners = [
                owner if device is None else self._point_owner(at, device)
                for owner, device, at in zip(owners, devices, row.tolist(), strict=True)
            ]
        return self.names.point_column(owners, metrics)

    def _point_owner(self, row: int, device: str) -> int:
        topic = self.topics[row]
        return self.names.owner(topic.tenant, topic.project, device)


def _take_names(column: Sequence[Any], found: list[str | None]) -> Bools:
    """Fill names that are still missing from strings and integers; which were taken."""
    taken = np.zeros(len(found), np.bool_)
    for i, value in enumerate(column):
        if found[i] is None:
            kind = type(value)
            if kind is str or kind is int:
                found[i] = value if kind is str else str(value)
                taken[i] = True
    return taken


def _number(text: str) -> int | float | str:
    found = finite_number(text)
    return text if found is None else found if type(found) is int else float(found)


def _metric(metric: Any, item: dict[str, Any]) -> str:
    kind = type(metric)
    if kind is not str and kind is not int:
        metric = item.get("id")
    return metric if type(metric) is str else str(metric)
