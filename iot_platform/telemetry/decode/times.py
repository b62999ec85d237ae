"""Timestamps of the decode contract: epoch numbers, digits in a string and ISO 8601, to µs since the epoch (UTC)."""

import re
from datetime import datetime, timedelta, tzinfo
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, ROUND_DOWN, ROUND_HALF_EVEN, Context, Decimal

from iot_platform.telemetry.decode.document import Instant, Json, Real

SECONDS_BELOW, MILLIS_BELOW, MICROS_BELOW = 10**11, 10**14, 10**17
MAX_DIGITS = 40  # beyond any epoch; keeps int() away from megabytes of digits

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - naive on purpose: offsets are subtracted by hand, exactly
_MICROSECOND = timedelta(microseconds=1)
_ONE = Decimal(1)
_EXACT = Context(prec=MAX_PREC, Emax=MAX_EMAX, Emin=MIN_EMIN)
_DIGITS = re.compile(r"[0-9]+")
_ISO = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[T ]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]+))?)?(?:(Z)|([+-])([0-9]{2}):?([0-9]{2}))?"
)


def parse_time(value: Json, zone: tzinfo) -> int | None:
    """µs since the epoch of a timestamp field, None if it is none (bad_timestamp). Any size, any value; never raises."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return _epoch_integer(value)
    if isinstance(value, Instant):
        return value.micros
    if isinstance(value, Real):
        return _epoch_real(value)
    if isinstance(value, str):
        return _epoch_digits(value) if _DIGITS.fullmatch(value) else _iso(value, zone)
    return None


def _truncated(value: int, divisor: int) -> int:
    return value // divisor if value >= 0 else -(-value // divisor)


def _epoch_integer(value: int) -> int:
    size = abs(value)
    if size < SECONDS_BELOW:
        return value * 1_000_000
    if size < MILLIS_BELOW:
        return value * 1_000
    return value if size < MICROS_BELOW else _truncated(value, 1_000)


def _epoch_digits(digits: str) -> int:
    digits = digits.lstrip("0")
    return _epoch_integer(int(digits[:MAX_DIGITS] or "0"))


def _epoch_real(value: Real) -> int:
    """Exactly from the number's digits: fractions of seconds are rounded (half to even), of ms and µs truncated."""
    if value == 0.0:  # also what underflows a double
        return 0
    exact = Decimal(value.token)
    size = exact.copy_abs()
    if size < SECONDS_BELOW:
        return int(exact.scaleb(6, _EXACT).quantize(_ONE, ROUND_HALF_EVEN, _EXACT))
    if size < MILLIS_BELOW:
        return int(exact.scaleb(3, _EXACT).quantize(_ONE, ROUND_DOWN, _EXACT))
    return int(exact) if size < MICROS_BELOW else _truncated(int(exact), 1_000)


def _iso(text: str, zone: tzinfo) -> int | None:
    found = _ISO.fullmatch(text)
    if found is None:
        return None
    year, month, day, hour, minute, second, fraction, utc, sign, offset_hours, offset_minutes = found.groups()
    micros = int((fraction or "")[:6].ljust(6, "0"))
    try:
        local = datetime(int(year), int(month), int(day), int(hour), int(minute), int(second or 0), micros)  # noqa: DTZ001
    except ValueError:
        return None
    if utc:
        offset = 0
    elif sign:
        if int(offset_hours) > 23 or int(offset_minutes) > 59:
            return None
        offset = (int(offset_hours) * 60 + int(offset_minutes)) * 60_000_000 * (-1 if sign == "-" else 1)
    else:
        offset = (local.replace(tzinfo=zone).utcoffset() or timedelta()) // _MICROSECOND
    return (local - _EPOCH) // _MICROSECOND - offset


def format_time(micros: int) -> str:
    """ISO 8601 in UTC with six digits and Z; beyond the years 1..9999 the number itself."""
    try:
        return (_EPOCH + timedelta(microseconds=micros)).isoformat(timespec="microseconds") + "Z"
    except OverflowError:
        return f"{micros} µs"
