"""The decoded batch, and the collector that puts measurements of many shapes back into the order of the records."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from iot_platform.telemetry.decode.reasons import Measurement, Reason
from iot_platform.telemetry.decode.sparkplug.births import BatchBirths

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


LocalTimesOfRecord = tuple[int, int, int]
"""Record, how many of its timestamps their zone's clocks showed twice, and how many never; only records that have such."""


@dataclass(slots=True)
class DecodedBatch:
    """n records in input order and their m measurements, ordered by record and, within one, as in its document."""

    source_index: Int32  # [n] index into Decoder.sources, -1 when quarantined
    time_source: npt.NDArray[np.uint8]  # [n] 0 receive time, 1 from the payload
    reason: list[tuple[int, Reason, str]]  # (record, reason, detail) of quarantined records, ascending
    m_row: Int32  # [m] record, ascending
    m_series: Int32  # [m] index into Decoder.series
    m_time: Int64  # [m] µs since the epoch
    m_value: Floats  # [m] 0.0 where not valid
    m_value_valid: Bools  # [m]
    m_int_rows: Int32  # indices into the measurements, ascending
    m_ints: Int64
    m_text_rows: Int32  # indices into the measurements, ascending
    m_texts: list[str]
    local_times: list[LocalTimesOfRecord]
    m_historical: Int32  # indices of those that are nobody's latest value, any order
    births: BatchBirths


@dataclass(slots=True)
class Block:
    """Measurements of some records, in their order within each record. `texts` belong to the positions `text_at`."""

    row: Int32
    series: Int32
    time: Int64
    value: Floats
    valid: bool | Bools
    text_at: Int32 | None = None
    texts: Sequence[str] = ()

    def only(self, present: Bools) -> "Block":
        """Without the measurements that are not there."""
        valid = self.valid if isinstance(self.valid, bool) else self.valid[present]
        block = Block(self.row[present], self.series[present], self.time[present], self.value[present], valid)
        if self.text_at is not None:
            kept = present[self.text_at]
            block.text_at = (np.cumsum(present, dtype=np.int32) - 1)[self.text_at[kept]]
            block.texts = self.texts if kept.all() else [text for text, keep in zip(self.texts, kept.tolist(), strict=True) if keep]
        return block


class Rows:
    """Measurements of the plain decoder, collected one by one."""

    def __init__(self) -> None:
        self.row: list[int] = []
        self.series: list[int] = []
        self.time: list[int] = []
        self.value: list[float | None] = []
        self.ints: dict[int, int] = {}
        self.texts: dict[int, str] = {}
        self.historical: list[int] = []

    def add(self, row: int, series: int, item: Measurement) -> None:
        if item.value_int is not None:
            self.ints[len(self.row)] = item.value_int
        if item.value_text is not None:
            self.texts[len(self.row)] = item.value_text
        if item.is_historical:
            self.historical.append(len(self.row))
        self.row.append(row)
        self.series.append(series)
        self.time.append(item.time)
        self.value.append(item.value)

    def block(self) -> Block:
        return Block(
            row=np.array(self.row, np.int32),
            series=np.array(self.series, np.int32),
            time=np.array(self.time, np.int64),
            value=np.array([0.0 if value is None else value for value in self.value], np.float64),
            valid=np.array([value is not None for value in self.value], np.bool_),
            text_at=np.array(list(self.texts), np.int32),
            texts=list(self.texts.values()),
        )


@dataclass(slots=True)
class Measurements:
    """All blocks of a batch as one, still in the order of the blocks."""

    row: Int32
    series: Int32
    time: Int64
    value: Floats
    valid: Bools
    text_at: Int32
    texts: list[str]

    @classmethod
    def of(cls, blocks: Sequence[Block]) -> "Measurements":
        starts = np.cumsum([0, *(len(block.row) for block in blocks)])
        texts: list[str] = []
        text_at: list[Int32] = []
        for block, start in zip(blocks, starts.tolist(), strict=False):
            if block.text_at is not None:
                text_at.append((block.text_at + start).astype(np.int32))
                texts.extend(block.texts)
        valid = [np.full(len(block.row), block.valid, np.bool_) if isinstance(block.valid, bool) else block.valid for block in blocks]
        return cls(
            row=np.concatenate([np.empty(0, np.int32), *(block.row for block in blocks)]),
            series=np.concatenate([np.empty(0, np.int32), *(block.series for block in blocks)]),
            time=np.concatenate([np.empty(0, np.int64), *(block.time for block in blocks)]),
            value=np.concatenate([np.empty(0, np.float64), *(block.value for block in blocks)]),
            valid=np.concatenate([np.empty(0, np.bool_), *valid]),
            text_at=np.concatenate([np.empty(0, np.int32), *text_at]),
            texts=texts,
        )

    def block(self) -> Block:
        return Block(self.row, self.series, self.time, self.value, self.valid, self.text_at, self.texts)

    def by_record(self) -> npt.NDArray[np.intp]:
        """The order by record that keeps the order within each."""
        return np.argsort(self.row, kind="stable")

    def taken(self, order: npt.NDArray[np.intp]) -> "Measurements":
        """These measurements only, in this order."""
        text_of = np.full(len(self.row) if self.texts else 0, -1, np.int32)
        text_of[self.text_at] = np.arange(len(self.texts), dtype=np.int32)
        text_of = text_of[order] if self.texts else text_of
        text_at = np.flatnonzero(text_of >= 0)
        return Measurements(
            row=self.row[order],
            series=self.series[order],
            time=self.time[order],
            value=self.value[order],
            valid=self.valid[order],
            text_at=text_at.astype(np.int32),
            texts=list(map(self.texts.__getitem__, text_of[text_at].tolist())),
        )
