"""The decoded batch, and the collector that puts measurements of many shapes back into the order of the records."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress

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
    m_text: Int32  # [m] index into m_texts, -1 without a text
    m_texts: list[str]  # each is of some measurement, often of many
    local_times: list[LocalTimesOfRecord]
    m_historical: Int32  # indices of those that are nobody's latest value, any order
    births: BatchBirths


@dataclass(slots=True)
class Block:
    """Measurements of some records, in their order within each record. `text` is each one's position in `texts`, -1 without one."""

    row: Int32
    series: Int32
    time: Int64
    value: Floats
    valid: bool | Bools
    text: Int32 | None = None
    texts: Sequence[str] = ()

    def only(self, present: Bools) -> "Block":
        """Without the measurements that are not there."""
        valid = self.valid if isinstance(self.valid, bool) else self.valid[present]
        text = None if self.text is None else self.text[present]
        return Block(self.row[present], self.series[present], self.time[present], self.value[present], valid, text, self.texts)


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
        text = np.full(len(self.row), -1, np.int32)
        text[list(self.texts)] = np.arange(len(self.texts), dtype=np.int32)
        return Block(
            row=np.array(self.row, np.int32),
            series=np.array(self.series, np.int32),
            time=np.array(self.time, np.int64),
            value=np.array([0.0 if value is None else value for value in self.value], np.float64),
            valid=np.array([value is not None for value in self.value], np.bool_),
            text=text,
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
    text: Int32
    texts: list[str]

    @classmethod
    def of(cls, blocks: Sequence[Block]) -> "Measurements":
        texts: list[str] = []
        text: list[Int32] = []
        for block in blocks:
            if block.text is None:
                text.append(np.full(len(block.row), -1, np.int32))
            else:
                text.append(np.where(block.text < 0, block.text, block.text + np.int32(len(texts))))
                texts.extend(block.texts)
        valid = [np.full(len(block.row), block.valid, np.bool_) if isinstance(block.valid, bool) else block.valid for block in blocks]
        return cls(
            row=np.concatenate([np.empty(0, np.int32), *(block.row for block in blocks)]),
            series=np.concatenate([np.empty(0, np.int32), *(block.series for block in blocks)]),
            time=np.concatenate([np.empty(0, np.int64), *(block.time for block in blocks)]),
            value=np.concatenate([np.empty(0, np.float64), *(block.value for block in blocks)]),
            valid=np.concatenate([np.empty(0, np.bool_), *valid]),
            text=np.concatenate([np.empty(0, np.int32), *text]),
            texts=texts,
        )

    def block(self) -> Block:
        return Block(self.row, self.series, self.time, self.value, self.valid, self.text, self.texts)

    def by_record(self) -> npt.NDArray[np.intp]:
        """The order by record that keeps the order within each."""
        return np.argsort(self.row, kind="stable")

    def taken(self, order: npt.NDArray[np.intp]) -> "Measurements":
        """These measurements only, in this order."""
        text, texts = self.text[order], self.texts
        used = np.zeros(len(texts), np.bool_)
        used[text[text >= 0]] = True
        if not used.all():
            text = np.where(text < 0, text, (np.cumsum(used, dtype=np.int32) - 1)[text])
            texts = list(compress(texts, used.tolist()))
        return Measurements(
            row=self.row[order],
            series=self.series[order],
            time=self.time[order],
            value=self.value[order],
            valid=self.valid[order],
            text=text,
            texts=texts,
        )
