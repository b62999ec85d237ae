"""Timestamp fields of a whole column: plain integers by numpy, ISO 8601 texts by their characters, whatever is rarer one by one."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

import numpy as np
import numpy.typing as npt

from iot_platform.telemetry.decode.result import Bools, Int64
from iot_platform.telemetry.decode.times import MICROS_BELOW, MILLIS_BELOW, SECONDS_BELOW, parse_time

NO_TIME = -(2**63)  # a clock that is none, or that only the plain decoder can judge
_MAX_EXACT_SECONDS = 2.0**31
_MAX_ROUNDING = 0.25
_MIN_COLUMN = 8

# YYYY-MM-DD and T or a space, hh:mm:ss; then perhaps a point and up to six digits (longer fractions are rare), then Z, ±hh:mm or nothing.
_SECONDS_END = 19
_LONGEST = _SECONDS_END + len(".123456") + len("+00:00")
_DATE_TIME_DIGITS = (0, 1, 2, 3, 5, 6, 8, 9, 11, 12, 14, 15, 17, 18)
_DATE_TIME_MARKS = ((4, "-"), (7, "-"), (13, ":"), (16, ":"))

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
    lengths = np.fromiter(map(len, values), np.int64, len(values))
    counts = np.bincount(np.minimum(lengths, _LONGEST + 1), minlength=_LONGEST + 2)
    for length in range(_SECONDS_END, _LONGEST + 1):
        if counts[length] >= _MIN_COLUMN:
            at = np.flatnonzero(lengths == length)
            texts = values if len(at) == len(values) else [values[row] for row in at.tolist()]
            times[at] = _of_one_length(texts, length, zone)
    for row in np.flatnonzero(times == NO_TIME).tolist():
        times[row] = _small(parse_time(values[row], zone))
    return times


def _of_one_length(texts: Sequence[str], length: int, zone: tzinfo) -> Int64:
    """ISO 8601 texts of one length, character by character; NO_TIME for other forms and for days that do not exist."""
    characters = np.frombuffer("".join(texts).encode("ascii", "replace"), np.uint8).reshape(-1, length).T.copy()  # "?" fits nowhere
    times = np.full(len(texts), NO_TIME, np.int64)
    utc = characters[-1] == ord("Z")
    offset = ~utc & ((characters[-6] == ord("+")) | (characters[-6] == ord("-")))
    for form, width in ((utc, 1), (offset, len("+00:00")), (~utc & ~offset, 0)):
        if (all_alike := bool(form.all())) or form.any():
            of_form = characters if all_alike else characters[:, form]
            local = _date_times(of_form[: length - width])
            times[form] = _from_local(local, zone) if width == 0 else local if width == 1 else _from_offset(local, of_form[-width:])
    return times


def _date_times(characters: npt.NDArray[np.uint8]) -> Int64:
    """[characters, n] without a zone to µs, as if they were UTC."""
    length = len(characters)
    fraction = range(_SECONDS_END + 1, length)
    if length != _SECONDS_END and not 1 <= len(fraction) <= 6:
        return np.full(characters.shape[1], NO_TIME, np.int64)
    digits = characters - np.uint8(ord("0"))
    sound = (digits[[*_DATE_TIME_DIGITS, *fraction]] <= 9).all(axis=0)
    for at, mark in _DATE_TIME_MARKS if length == _SECONDS_END else (*_DATE_TIME_MARKS, (_SECONDS_END, ".")):
        sound &= characters[at] == ord(mark)
    sound &= (characters[10] == ord("T")) | (characters[10] == ord(" "))
    year, month, day = _number(digits, range(4)), _number(digits, (5, 6)), _number(digits, (8, 9))
    hour, minute, second = _number(digits, (11, 12)), _number(digits, (14, 15)), _number(digits, (17, 18))
    sound &= (year >= 1) & (month >= 1) & (month <= 12) & (hour <= 23) & (minute <= 59) & (second <= 59)
    months, month_of = np.unique((year - 1970) * 12 + month - 1, return_inverse=True)  # few
    edges = [np.asarray(each, "M8[M]").astype("M8[D]").astype(np.int64) for each in (months, months + 1)]
    sound &= (day >= 1) & (day <= (edges[1] - edges[0])[month_of])
    days = edges[0][month_of] + day - 1
    micros = (((days * 24 + hour) * 60 + minute) * 60 + second) * 1_000_000 + _number(digits, fraction) * 10 ** (6 - len(fraction))
    return np.where(sound, micros, NO_TIME)


def _from_offset(times: Int64, characters: npt.NDArray[np.uint8]) -> Int64:
    """Times with an offset (six characters each) to UTC; NO_TIME where it is none."""
    digits = characters - np.uint8(ord("0"))
    hours, minutes = _number(digits, (1, 2)), _number(digits, (4, 5))
    sound = (digits[[1, 2, 4, 5]] <= 9).all(axis=0) & (characters[3] == ord(":")) & (hours <= 23) & (minutes <= 59)
    offset = (hours * 60 + minutes) * np.where(characters[0] == ord("-"), -60_000_000, 60_000_000)
    return np.where(sound & (times != NO_TIME), times - offset, NO_TIME)


def _number(digits: npt.NDArray[np.uint8], places: Sequence[int]) -> Int64:
    """The number that these rows of digits spell."""
    number = np.zeros(digits.shape[1], np.int64)
    for place in places:
        number = number * 10 + digits[place]
    return number


def _from_local(times: Int64, zone: tzinfo) -> Int64:
    """Local times to UTC, a quarter of an hour at a time; NO_TIME in those that the zone has twice or not at all, wholly or in part.

    Python's zone data, not numpy's: both decoders must agree.
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


def in_window(times: npt.NDArray[np.int64], received: npt.NDArray[np.int64], past_us: int | npt.NDArray[np.int64], future_us: int) -> Bools:
    """Whether each time lies between receive time - past and + future; NO_TIME does not."""
    inside: Bools = (times != NO_TIME) & (times >= received - past_us) & (times <= received + future_us)
    return inside
