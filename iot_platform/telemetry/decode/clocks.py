"""Timestamp fields of a whole column: plain integers by numpy, ISO 8601 texts by polars, whatever is rarer one by one."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from iot_platform.telemetry.decode.result import Bools, Int64
from iot_platform.telemetry.decode.times import MICROS_BELOW, MILLIS_BELOW, SECONDS_BELOW, parse_time

NO_TIME = -(2**63)  # a clock that is none, or that only the plain decoder can judge
_MAX_EXACT_SECONDS = 2.0**31
_MAX_ROUNDING = 0.25
_MIN_COLUMN = 8

# (what follows the date, as a strict pattern; the same for polars, which alone would accept more). Fractions beyond µs are rare.
_DATE, _MINUTES = "^[0-9]{4}-[0-9]{2}-[0-9]{2}", "(?:[01][0-9]|2[0-3]):[0-5][0-9]"
_SECONDS = r":[0-5][0-9](?:\.[0-9]{1,6})?"
_UTC_FORMS = tuple((f"{_DATE}{sep}{_MINUTES}{_SECONDS}Z$", f"%Y-%m-%d{sep}%H:%M:%S%.fZ") for sep in "T ")
_OFFSET_FORMS = tuple((f"{_DATE}{sep}{_MINUTES}{_SECONDS}[+-]{_MINUTES}$", f"%Y-%m-%d{sep}%H:%M:%S%.f%z") for sep in "T ")
_LOCAL_FORMS = tuple((f"{_DATE}{sep}{_MINUTES}{_SECONDS}$", f"%Y-%m-%d{sep}%H:%M:%S%.f") for sep in "T ")

_SLOT_US = 15 * 60 * 1_000_000


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

    Below 2^31 s the double is within 0.12 µs of the digits, the product adds 0.125: an integer within 0.25 is the nearest one.
    """
    numbers = np.array(values, np.float64)
    certain = (numbers >= 0) & (numbers < _MAX_EXACT_SECONDS)
    micros = np.where(certain, numbers, 0.0) * 1e6
    nearest = np.rint(micros)
    certain &= np.abs(micros - nearest) <= _MAX_ROUNDING
    return np.where(certain, nearest.astype(np.int64), NO_TIME)


def _texts(values: Sequence[str], zone: tzinfo) -> Int64:
    times = np.full(len(values), NO_TIME, np.int64)
    if len(values) >= _MIN_COLUMN:
        column = pl.Series(values, dtype=pl.String)
        for pattern, form in (*_UTC_FORMS, *_OFFSET_FORMS, *_LOCAL_FORMS):
            fits = column.str.contains(pattern)
            if fits.any():
                parsed = _parse(column, form, fits)
                times = np.where(fits.to_numpy(), parsed if form[-1] in "Zz" else _from_local(parsed, zone), times)
            if fits.all():
                break
    for row in np.flatnonzero(times == NO_TIME).tolist():
        times[row] = _small(parse_time(values[row], zone))
    return times


def _parse(column: pl.Series, form: str, fits: pl.Series) -> Int64:
    """Parsed with polars where the pattern fits; NO_TIME elsewhere and for days that do not exist."""
    texts = column if fits.all() else column.set(~fits, None)
    parsed = texts.str.to_datetime(form, time_unit="us", strict=False).dt.timestamp("us")
    return parsed.fill_null(NO_TIME).to_numpy()


def _from_local(times: Int64, zone: tzinfo) -> Int64:
    """Local times to UTC, a quarter of an hour at a time; NO_TIME in those that the zone has twice or not at all, wholly or in part.

    Python's zone data, not polars': both decoders must agree.
    """
    slots, slot_of = np.unique(times // _SLOT_US, return_inverse=True)
    offsets = np.array([_slot_offset(slot, zone) for slot in slots.tolist()], np.int64)[slot_of]
    shifted: Int64 = np.where((times == NO_TIME) | (offsets == NO_TIME), NO_TIME, times - offsets)
    return shifted


def _slot_offset(slot: int, zone: tzinfo) -> int:
    try:
        first = datetime(1970, 1, 1, tzinfo=zone) + timedelta(microseconds=slot * _SLOT_US)  # wall-clock arithmetic
        edges = (first, first + timedelta(microseconds=_SLOT_US - 1))
        offsets = {edge.replace(fold=fold).utcoffset() for edge in edges for fold in (0, 1)}
    except OverflowError:
        return NO_TIME
    offset = offsets.pop()
    return NO_TIME if offsets or offset is None else offset // timedelta(microseconds=1)


def in_window(times: npt.NDArray[np.int64], received: npt.NDArray[np.int64], past_us: int, future_us: int) -> Bools:
    """Whether each time lies between receive time - past and + future; NO_TIME does not."""
    inside: Bools = (times != NO_TIME) & (times >= received - past_us) & (times <= received + future_us)
    return inside
