"""The decoder of the drain: columns in, columns out, with names interned to dense ids that live as long as the decoder."""

from collections.abc import Sequence
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from iot_platform.telemetry.decode.columns import Columns
from iot_platform.telemetry.decode.limits import MAX_MEASUREMENTS
from iot_platform.telemetry.decode.names import Names, SeriesName, SourceName, Topic
from iot_platform.telemetry.decode.plain import decode_one
from iot_platform.telemetry.decode.reasons import Quarantined, Reason
from iot_platform.telemetry.decode.result import Bools, DecodedBatch, LocalTimesOfRecord, Measurements, Rows
from iot_platform.telemetry.decode.rules import DecodeRules
from iot_platform.telemetry.decode.screen import parse_all, suspicious
from iot_platform.telemetry.decode.shapes import MIN_ROWS, Grouping
from iot_platform.telemetry.decode.sparkplug.births import Place

MAX_NAMES: Final = 1_000_000
"""A decoder with more names than this is replaced: a flood of new names must not fill the memory."""
_CHUNK = 1_000  # parsed objects alive at once: they stay in the CPU's cache
_CONTAINERS = frozenset({dict, list})
_Item = TypeVar("_Item")


class Decoder:
    """Decodes batches of Kafka records under one set of rules.

    Records of a common shape are decoded as columns, all others by `decode_one`; the outcomes are the same. `sources` and `series` also
    hold names that only occurred in records that were quarantined in the end.

    One thread decodes. Others may read `rules`, `sources` and `series` meanwhile, at the indices of a batch that was handed to them, and
    compare decoders by identity: both lists only grow, and an entry never changes.
    """

    def __init__(self, rules: DecodeRules) -> None:
        self.rules = rules
        self._names = Names(rules)
        self._next = 0

    @property
    def sources(self) -> list[SourceName]:
        """(topic, tenant, project, device) by source index."""
        return self._names.sources

    @property
    def series(self) -> list[SeriesName]:
        """(tenant, project, device, metric) by series index."""
        return self._names.series

    @property
    def names(self) -> int:
        """How many names are held in memory; topics that fit no pattern count too."""
        return self._names.size

    def renewed(self) -> "Decoder":
        """This decoder, or an empty one of the same rules where it holds more than MAX_NAMES; for the thread that decodes."""
        return self if self.names <= MAX_NAMES else Decoder(self.rules)

    def decode(
        self,
        topics: Sequence[bytes | None],
        payloads: Sequence[bytes | None],
        received_at: npt.NDArray[np.int64],
        partition: npt.NDArray[np.int32] | None = None,
        places: npt.NDArray[np.int64] | None = None,
    ) -> DecodedBatch:
        """Decode n records; the sequences have equal length, received_at is µs since the epoch. `partition` and `places` say where each is
        (see records.place_of); without them each follows the one before. Never raises for any bytes; `rules.births` may raise what its
        database raises."""
        keys = [topic or b"" for topic in topics]
        values = [payload or b"" for payload in payloads]
        read = self._names.topics(keys)
        columns = Columns(self.rules, self._names, read, values, received_at)
        if len(keys) >= MIN_ROWS:
            self._decode_shapes(columns, read, values)
        else:
            columns.plain[:] = True
        measurements, totals = _in_order(columns)
        columns.timed |= (totals > 0) & (columns.own_times == totals)
        if partition is None or places is None:
            partition, places = np.zeros(len(keys), np.int32), np.arange(self._next, self._next + len(keys), dtype=np.int64)
            self._next += len(keys)
        return self._finish(columns, measurements, keys, values, partition=partition, places=places)

    def _decode_shapes(self, columns: Columns, topics: Sequence[Topic | None], payloads: Sequence[bytes]) -> None:
        """Decode what has a common shape; mark the rest as plain."""
        clocks = frozenset(self.rules.time_pointers)
        groupings = {False: Grouping(clocks), True: Grouping(clocks)}
        different = set(topics)
        kinds = {topic.device is not None for topic in different if topic is not None}
        uniform = next(iter(kinds)) if len(kinds) == 1 else None
        known: Sequence[int] = range(len(topics))
        plain: list[int] = []
        if None in different:  # their payloads may be of another codec: not to be parsed here
            plain = [row for row in known if topics[row] is None]
            known = [row for row in known if topics[row] is not None]
        for start in range(0, len(known), _CHUNK):
            rows = known[start : start + _CHUNK]
            chunk = _taken(payloads, rows)
            documents = parse_all(chunk)
            hidden = suspicious(chunk)
            if uniform is not None and not hidden and set(map(type, documents)) <= _CONTAINERS:
                groupings[uniform].add(rows, documents)
                continue
            chosen: dict[bool, tuple[list[int], list[Any]]] = {False: ([], []), True: ([], [])}
            for at, (row, topic, document) in enumerate(zip(rows, _taken(topics, rows), documents, strict=True)):
                if topic is None or type(document) not in _CONTAINERS or at in hidden:
                    plain.append(row)
                else:
                    of_kind, found = chosen[topic.device is not None]
                    of_kind.append(row)
                    found.append(document)
            for device_in_topic, (of_kind, found) in chosen.items():
                groupings[device_in_topic].add(of_kind, found)
        for device_in_topic, grouping in groupings.items():
            shapes, rare = grouping.shapes()
            plain += rare
            for shape in shapes:
                columns.shape(shape, device_in_topic)
        columns.plain[plain] = True

    def _finish(
        self,
        columns: Columns,
        measurements: Measurements,
        topics: Sequence[bytes],
        payloads: Sequence[bytes],
        *,
        partition: npt.NDArray[np.int32],
        places: npt.NDArray[np.int64],
    ) -> DecodedBatch:
        """Decode the plain records, in their order, and put all measurements in order."""
        rows = Rows()
        reason: list[tuple[int, Reason, str]] = []
        local_times: list[LocalTimesOfRecord] = []
        for row in np.flatnonzero(columns.plain).tolist():
            at = Place(int(partition[row]), int(places[row]), int(columns.received_at[row]))
            outcome = decode_one(self.rules, topics[row], payloads[row], at.received_at, at)
            if isinstance(outcome, Quarantined):
                columns.source[row] = -1
                columns.timed[row] = False
                reason.append((row, outcome.reason, outcome.detail))
                continue
            columns.source[row] = self._names.source(topics[row].decode(), outcome.tenant, outcome.project, outcome.device)
            columns.timed[row] = outcome.time_from_payload
            if outcome.ambiguous_times or outcome.skipped_times:
                local_times.append((row, outcome.ambiguous_times, outcome.skipped_times))
            for item in outcome.measurements:
                rows.add(row, self._names.serie(outcome.tenant, outcome.project, item.device, item.metric), item)
        ints, historical = (np.empty(0, np.int32), np.empty(0, np.int64)), np.empty(0, np.int32)
        if rows.row:
            first = np.int32(len(measurements.row))
            measurements = Measurements.of([measurements.block(), rows.block()])
            order = measurements.by_record()
            position = np.empty(len(order), np.int32)
            position[order] = np.arange(len(order), dtype=np.int32)
            ints = (position[np.array(list(rows.ints), np.int32) + first], np.array(list(rows.ints.values()), np.int64))
            historical = position[np.array(rows.historical, np.int32) + first]
            measurements = measurements.taken(order)
        return DecodedBatch(
            source_index=columns.source,
            time_source=columns.timed.astype(np.uint8),
            reason=reason,
            m_row=measurements.row,
            m_series=measurements.series,
            m_time=measurements.time,
            m_value=measurements.value,
            m_value_valid=measurements.valid,
            m_int_rows=ints[0],
            m_ints=ints[1],
            m_text=measurements.text,
            m_texts=measurements.texts,
            local_times=local_times,
            m_historical=historical,
            births=self.rules.births.taken(),
        )


def _taken(items: Sequence[_Item], rows: Sequence[int]) -> Sequence[_Item]:
    return items[rows.start : rows.stop] if isinstance(rows, range) else [items[row] for row in rows]


def _in_order(columns: Columns) -> tuple[Measurements, npt.NDArray[np.int64]]:
    """The measurements of the columns by record, and their number by record. Judges what only whole records show."""
    found = Measurements.of(columns.blocks)
    totals = np.bincount(found.row, minlength=len(columns.plain))
    columns.plain[totals > MAX_MEASUREMENTS] = True
    if columns.pointed.any():
        columns.plain[_repeating(found, columns.pointed)] = True
    order = found.by_record()
    if columns.plain.any():
        order = order[~columns.plain[found.row[order]]]
    return found.taken(order), totals


def _repeating(found: Measurements, pointed: Bools) -> npt.NDArray[np.int32]:
    """Records with points that have two measurements of one series and time."""
    at = np.flatnonzero(pointed[found.row])
    row, series, time = found.row[at], found.series[at], found.time[at]
    order = np.lexsort((time, series, row))
    row, series, time = row[order], series[order], time[order]
    same = (row[1:] == row[:-1]) & (series[1:] == series[:-1]) & (time[1:] == time[:-1])
    repeating: npt.NDArray[np.int32] = row[1:][same]
    return repeating
