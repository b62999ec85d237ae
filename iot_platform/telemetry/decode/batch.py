"""The decoder of the drain: columns in, columns out, with names interned to dense ids that live as long as the decoder."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from iot_platform.telemetry.decode.plain import decode_one
from iot_platform.telemetry.decode.reasons import Measurement, Message, Quarantined, Reason
from iot_platform.telemetry.decode.rules import DecodeRules

SourceName = tuple[str, str, str, str]  # topic, tenant, project, device
SeriesName = tuple[str, str, str, str]  # tenant, project, device, metric


@dataclass(slots=True)
class DecodedBatch:
    """n records in input order and their m measurements, ordered by record and, within one, as in its document."""

    source_index: npt.NDArray[np.int32]  # [n] index into Decoder.sources, -1 when quarantined
    time_source: npt.NDArray[np.uint8]  # [n] 0 receive time, 1 from the payload
    reason: list[tuple[int, Reason, str]]  # (record, reason, detail) of quarantined records, ascending
    m_row: npt.NDArray[np.int32]  # [m] record, ascending
    m_series: npt.NDArray[np.int32]  # [m] index into Decoder.series
    m_time: npt.NDArray[np.int64]  # [m] µs since the epoch
    m_value: npt.NDArray[np.float64]  # [m] 0.0 where not valid
    m_value_valid: npt.NDArray[np.bool_]  # [m]
    m_int_rows: npt.NDArray[np.int32]  # indices into the measurements, ascending
    m_ints: npt.NDArray[np.int64]
    m_text_rows: npt.NDArray[np.int32]  # indices into the measurements, ascending
    m_texts: list[str]


@dataclass(slots=True)
class Names:
    """Append-only interning tables: an id once given stays valid."""

    sources: list[SourceName] = field(default_factory=list)
    series: list[SeriesName] = field(default_factory=list)
    _source_ids: dict[SourceName, int] = field(default_factory=dict)
    _series_ids: dict[SeriesName, int] = field(default_factory=dict)

    def source(self, topic: str, tenant: str, project: str, device: str) -> int:
        name = (topic, tenant, project, device)
        known = self._source_ids.get(name)
        if known is None:
            known = self._source_ids[name] = len(self.sources)
            self.sources.append(name)
        return known

    def serie(self, tenant: str, project: str, device: str, metric: str) -> int:
        name = (tenant, project, device, metric)
        known = self._series_ids.get(name)
        if known is None:
            known = self._series_ids[name] = len(self.series)
            self.series.append(name)
        return known


class Rows:
    """Measurements collected row by row, to become columns."""

    def __init__(self) -> None:
        self.row: list[int] = []
        self.series: list[int] = []
        self.time: list[int] = []
        self.value: list[float | None] = []
        self.ints: dict[int, int] = {}
        self.texts: dict[int, str] = {}

    def add(self, row: int, series: int, item: Measurement) -> None:
        if item.value_int is not None:
            self.ints[len(self.row)] = item.value_int
        if item.value_text is not None:
            self.texts[len(self.row)] = item.value_text
        self.row.append(row)
        self.series.append(series)
        self.time.append(item.time)
        self.value.append(item.value)


class Decoder:
    """Decodes batches of Kafka records under one set of rules. Not safe for concurrent use: one per lane."""

    def __init__(self, rules: DecodeRules) -> None:
        self.rules = rules
        self._names = Names()

    @property
    def sources(self) -> list[SourceName]:
        """(topic, tenant, project, device) by source index."""
        return self._names.sources

    @property
    def series(self) -> list[SeriesName]:
        """(tenant, project, device, metric) by series index."""
        return self._names.series

    def decode(self, topics: Sequence[bytes | None], payloads: Sequence[bytes | None], received_at: npt.NDArray[np.int64]) -> DecodedBatch:
        """Decode n records; the three sequences have equal length, received_at is µs since the epoch. Never raises for any bytes."""
        count = len(topics)
        source_index = np.full(count, -1, np.int32)
        time_source = np.zeros(count, np.uint8)
        reason: list[tuple[int, Reason, str]] = []
        rows = Rows()
        for row, (topic, payload, received) in enumerate(zip(topics, payloads, received_at.tolist(), strict=True)):
            outcome = decode_one(self.rules, topic, payload, received)
            if isinstance(outcome, Quarantined):
                reason.append((row, outcome.reason, outcome.detail))
                continue
            source_index[row] = self._intern(row, topic or b"", outcome, rows)
            time_source[row] = outcome.time_from_payload
        return DecodedBatch(
            source_index=source_index,
            time_source=time_source,
            reason=reason,
            m_row=np.array(rows.row, np.int32),
            m_series=np.array(rows.series, np.int32),
            m_time=np.array(rows.time, np.int64),
            m_value=np.array([0.0 if value is None else value for value in rows.value], np.float64),
            m_value_valid=np.array([value is not None for value in rows.value], np.bool_),
            m_int_rows=np.array(list(rows.ints), np.int32),
            m_ints=np.array(list(rows.ints.values()), np.int64),
            m_text_rows=np.array(list(rows.texts), np.int32),
            m_texts=list(rows.texts.values()),
        )

    def _intern(self, row: int, topic: bytes, message: Message, rows: Rows) -> int:
        for item in message.measurements:
            rows.add(row, self._names.serie(message.tenant, message.project, item.device, item.metric), item)
        return self._names.source(topic.decode(), message.tenant, message.project, message.device)
