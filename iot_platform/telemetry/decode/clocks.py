"""Timestamp fields of a whole column: plain integers by numpy, ISO 8601 texts by polars, whatever is rarer one by one."""

from collections.abc import Sequence
from datetime import UTC, tzinfo
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from iot_platform.telemetry.decode.result import Bools, Int64
from iot_platform.telemetry.decode.times import MICROS_BELOW, MILLIS_BELOW, SECONDS_BELOW, parse_time

NO_TIME = -(2**63)  # a clock that is none, or that only the plain decoder can judge
_MAX_EXACT_SECONDS = 2.0**31
_MAX_ROUNDING = 0.2
_MIN_COLUMN = 8

_ISO_UTC = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,6})?Z$"
_ISO_OFFSET = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,6})?[+-](?:[01][0-9]|2[0-3]):[0-5][0-9]$"
_FORMATS = ((_ISO_UTC, "%Y-%m-%dT%H:%M:%S%.fZ"), (_ISO_OFFSET, "%Y-%m-%dT%H:%M:%S%.f%z"))


def clock_column(values: Sequence[Any], zone: tzinfo) -> Int64:
    """µs since the epoch of each value, none of which is null; NO_TIME where the plain decoder must judge."""
    kinds = set(map(type, values))
    if kinds == {int}:
        return _integers(values)
    if kinds == {str}:
        return _texts(values, zone)
    if kinds == {float}:
        return _reals(values)
    times = np.full(len(values), NO_TIME, np.int64)
    types = list(map(type, values))
    for kind in kinds & {int, str, float}:
        at = [row for row, found in enumerate(types) if found is kind]
        times[at] = clock_column([values[row] for row in at], zone)
    return times


def _integers(values: Sequence[int]) -> Int64:
    try:
        numbers = np.array(values, np.int64)
    except OverflowError:
        return np.array([_small(parse_time(value, UTC)) for value in values], np.int64)
    if (numbers < 0).any():
        return np.where(numbers < 0, NO_TIME, _scale(np.abs(numbers)))
    return _scale(numbers)


def _scale(numbers: Int64) -> Int64:
    """By magnitude: seconds, ms, µs or ns."""
    scaled: Int64 = np.where(
        numbers < MILLIS_BELOW,
        np.where(numbers < SECONDS_BELOW, numbers * 1_000_000, numbers * 1_000),
        np.where(numbers < MICROS_BELOW, numbers, numbers // 1_000),
    )
    return scaled


def _small(time: int | None) -> int:
    return NO_TIME if time is None or not -(2**62) < time < 2**62 else time


def _reals(values: Sequence[float]) -> Int64:
    """Seconds with a fraction, where double arithmetic is provably the rounding of the exact digits.

    Below 2^31 s the double is within 0.12 µs of the digits, the product adds 0.125: an integer within 0.2 is the nearest one.
    """
    numbers = np.array(values, np.float64)
    certain = (numbers >= 0) & (numbers < _MAX_EXACT_SECONDS)
    micros = np.where(certain, numbers, 0.0) * 1e6
    nearest = np.rint(micros)
    certain &= np.abs(micros - nearest) <= _MAX_ROUNDING
    return np.where(certain, nearest.astype(np.int64), NO_TIME)


def _texts(values: Sequence[str], zone: tzinfo) -> Int64:
    times = np.full(len(values), NO_TIME, np.int64)
    left = np.arange(len(values))
    if len(values) >= _MIN_COLUMN:
        column = pl.Series(values, dtype=pl.String)
        for pattern, form in _FORMATS:
            fits = column.str.contains(pattern)
            if fits.any():
                times = np.where(fits.to_numpy(), _parse(column, form, fits), times)
            if fits.all():
                break
        left = np.flatnonzero(times == NO_TIME)
    for row in left.tolist():
        times[row] = _small(parse_time(values[row], zone))
    return times


def _parse(column: pl.Series, form: str, fits: pl.Series) -> Int64:
    """Parsed with polars where the pattern fits; NO_TIME for days that do not exist."""
    texts = column if fits.all() else column.set(~fits, None)
    parsed = texts.str.to_datetime(form, time_unit="us", strict=False).dt.timestamp("us")
    return parsed.fill_null(NO_TIME).to_numpy()


def in_window(times: npt.NDArray[np.int64], received: npt.NDArray[np.int64], past_us: int, future_us: int) -> Bools:
    """Whether each time lies between receive time - past and + future; NO_TIME does not."""
    inside: Bools = (times != NO_TIME) & (times >= received - past_us) & (times <= received + future_us)
    return inside
