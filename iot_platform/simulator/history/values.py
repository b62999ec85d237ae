"""What each series of a history measured: a function of series and report, so that any part can be made again."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from iot_platform.database.copy_binary import Column, Texts, encode
from iot_platform.simulator.history import chance
from iot_platform.simulator.history.devices import HistoryFleet, Ints
from iot_platform.simulator.history.models import ANALOG, BIG_COUNTER, COUNTER, FLAG, STATE, Metric
from iot_platform.simulator.history.reports import HOUR_US, Reports

DAY_US: Final = 24 * HOUR_US
METERS_SINCE_US: Final = 1_577_836_800_000_000
"""Counters were at their start on 2020-01-01."""
BIG: Final = 2**53
STATE_WEIGHTS: Final = (0.62, 0.2, 0.1, 0.03, 0.03, 0.02)
FLAGS: Final = [b"false", b"true"]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Rows:
    """Measurements of some reports, ordered by series and time: positions in the fleet's series, and in the reports."""

    series: Ints
    report: Ints


class Values:
    """Makes measurements from reports, as rows of COPY measurement (time, series_id, value, value_int, value_text)."""

    def __init__(self, fleet: HistoryFleet) -> None:
        self._fleet = fleet
        seed, count = fleet.options.seed, len(fleet)
        numbers = np.arange(count, dtype=np.int64)
        base, shape, phase, weeks, hold = (
            chance.uniform(chance.scatter(chance.key(seed, name), numbers)) for name in ("base", "shape", "day", "weeks", "hold")
        )
        metrics = list(fleet.metrics())
        column = _Columns(metrics)
        low, high = column.floats("base", 0), column.floats("base", 1)
        self._kind = np.array([metric.kind for metric in metrics], np.int64)
        self._base = low + base * (high - low)
        scale = np.where(np.array([metric.relative for metric in metrics]), self._base, 1.0)
        self._amplitude = column.floats("amplitude") * (0.5 + shape) * scale
        self._noise, self._drift = column.floats("noise") * scale, column.floats("drift") * scale
        self._low, self._high = column.floats("low"), column.floats("high")
        self._decimals = 10.0 ** np.array([metric.decimals for metric in metrics])
        self._phase, self._weeks = phase, 17 + 40 * weeks
        self._hold_us = (HOUR_US * (0.5 + 8 * hold)).astype(np.int64)
        self._states = [state.encode() for metric in dict.fromkeys(metrics) for state in metric.states]
        self._noise_key, self._hold_key = chance.key(seed, "noise"), chance.key(seed, "state")
        self._first = np.searchsorted(fleet.device, np.arange(len(fleet.cadence) + 1))

    def rows(self, reports: Reports) -> Rows:
        """Each report as measurements of all series of its device."""
        starts = np.searchsorted(reports.device, np.arange(len(self._fleet.cadence) + 1))
        each = np.diff(starts)[self._fleet.device]
        series = np.repeat(np.arange(len(self._fleet), dtype=np.int64), each)
        ends = np.cumsum(each)
        report = np.arange(int(ends[-1])) + np.repeat(starts[:-1][self._fleet.device] - (ends - each), each)
        return Rows(series, report)

    def encode(self, rows: Rows, reports: Reports, series_id: npt.NDArray[np.int32]) -> list[bytes]:
        """The rows in COPY's format: numbers first, then flags, texts and big integers, each ordered by series and time, texts
        that many rows share one after the other."""
        kind, pieces = self._kind[rows.series], []
        numeric = (kind == ANALOG) | (kind == COUNTER)
        for chosen, make in (
            (numeric, self._numbers),
            (kind == FLAG, self._flags),
            (kind == STATE, self._texts),
            (kind == BIG_COUNTER, self._big),
        ):
            picked = np.flatnonzero(chosen)
            if len(picked):
                series, report = rows.series[picked], rows.report[picked]
                time = reports.time_us[report]
                columns = make(series, reports.number[report], time)
                pieces += encode([Column("timestamptz", time), Column("int4", series_id[series]), *columns], len(picked))
        return pieces

    def _numbers(self, series: Ints, number: Ints, time: Ints) -> list[Column]:
        value = np.empty(len(series), np.float64)
        analog = self._kind[series] == ANALOG
        wave, meter = np.flatnonzero(analog), np.flatnonzero(~analog)
        value[wave] = self._analog(series[wave], number[wave], time[wave])
        scale = self._decimals[series[meter]]
        value[meter] = np.floor(self._meter(series[meter], time[meter]) * scale) / scale
        none = np.zeros(len(series), np.bool_)
        return [Column("float8", value), Column("int8", none, none), Column("bytes", none, none)]

    def _analog(self, series: Ints, number: Ints, time: Ints) -> Floats:
        day = time / DAY_US
        value = self._base[series] + self._amplitude[series] * np.sin(2 * np.pi * (day % 1.0 + self._phase[series]))
        value += self._drift[series] * np.sin(2 * np.pi * (day / self._weeks[series] + self._phase[series]))
        value += self._noise[series] * chance.normal(chance.scatter(self._noise_key, series, number))
        scale = self._decimals[series]
        return np.rint(np.clip(value, self._low[series], self._high[series]) * scale) / scale

    def _meter(self, series: Ints, time: Ints) -> Floats:
        """Grows all day, fastest once a day, and never shrinks: the slope is rate·(1 − 0.8·cos)."""
        day = (time - METERS_SINCE_US) / DAY_US
        return self._base[series] * 24 * (day - 0.8 / (2 * np.pi) * np.sin(2 * np.pi * (day % 1.0)))

    def _big(self, series: Ints, _number: Ints, time: Ints) -> list[Column]:
        exact = BIG + self._meter(series, time).astype(np.int64)
        value = exact.astype(np.float64)
        none = np.zeros(len(series), np.bool_)
        return [Column("float8", value), Column("int8", exact, value.astype(np.int64) != exact), Column("bytes", none, none)]

    def _held(self, series: Ints, time: Ints) -> Floats:
        """A number in [0, 1) that stays the same for half an hour to 8.5 hours, the same for each series."""
        return chance.uniform(chance.scatter(self._hold_key, series, time // self._hold_us[series]))

    def _flags(self, series: Ints, _number: Ints, time: Ints) -> list[Column]:
        on = self._held(series, time) < self._base[series]
        none = np.zeros(len(series), np.bool_)
        return [Column("float8", on.astype(np.float64)), Column("int8", none, none), Column("bytes", Texts(FLAGS, on.astype(np.int32)))]

    def _texts(self, series: Ints, _number: Ints, time: Ints) -> list[Column]:
        limits = np.cumsum(STATE_WEIGHTS)[:-1]
        state = np.searchsorted(limits, self._held(series, time), side="right").astype(np.int32)
        none = np.zeros(len(series), np.bool_)
        return [Column("float8", none, none), Column("int8", none, none), Column("bytes", Texts(self._states, state))]


class _Columns:
    """Attributes of many metrics as arrays."""

    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def floats(self, name: str, part: int | None = None) -> Floats:
        values = (getattr(metric, name) for metric in self._metrics)
        return np.fromiter((value if part is None else value[part] for value in values), np.float64, len(self._metrics))
