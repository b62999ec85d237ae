"""Timestamps of the decode contract: epoch numbers, digits in a string and ISO 8601, to µs since the epoch (UTC)."""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, ROUND_DOWN, ROUND_HALF_EVEN, Context, Decimal

from iot_platform.telemetry.decode.document import Instant, Json, Real

SECONDS_BELOW, MILLIS_BELOW, MICROS_BELOW = 10**11, 10**14, 10**17
MAX_DIGITS = 40  # beyond any epoch; keeps int() away from megabytes of digits

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - naive on purpose: offsets are subtracted by hand, exactly
_MICROSECOND = timedelta(microseconds=1)
_ONE = Decimal(1)
_EXACT = Context(prec=MAX_PREC, Emax=MAX_EMAX, Emin=MIN_EMIN)
_DIGITS = re.compile(r"0*([0-9]*)(?:\.([0-9]+))?")
_ISO = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[T ]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]+))?)?(?:(Z)|([+-])([0-9]{2}):?([0-9]{2}))?"
)


@dataclass(slots=True)
class LocalTimes:
    """Decides times without a zone that the zone's clocks showed twice (in autumn) or never (in spring), and counts them.

    Of two, the one nearest before receive time counts, the earlier one if both lie after it; a skipped one is moved forward by the gap.
    """

    received_at: int
    ambiguous: int = 0
    skipped: int = 0

    def choose(self, local: int, first: int, second: int) -> int:
        """µs since the epoch of a local time, by the zone's offsets before and after the change (all in µs)."""
        if first < second:
            self.skipped += 1
            return local - first
        self.ambiguous += 1
        return local - second if local - second <= self.received_at else local - first


def parse_time(value: Json, zone: tzinfo, local_times: LocalTimes | None = None) -> int | None:
    """µs since the epoch of a timestamp field, None if it is none (bad_timestamp). Any size, any value; never raises.

    Without `local_times`, also None for a local time that the zone has twice or never.
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return _epoch_integer(value)
    if isinstance(value, Instant):
        return value.micros
    if isinstance(value, Real):
        return _epoch_real(value)
    if isinstance(value, str):
        digits = _DIGITS.fullmatch(value) if value[:1].isdecimal() else None
        return _iso(value, zone, local_times) if digits is None else _epoch_digits(digits[1], digits[2])
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


def _epoch_digits(whole: str, fraction: str | None) -> int:
    if fraction is None or len(whole) > MAX_DIGITS:
        return _epoch_integer(int(whole[:MAX_DIGITS] or "0"))
    kept = fraction[:MAX_DIGITS] + ("1" if fraction[MAX_DIGITS:].strip("0") else "")  # all that rounding asks of the rest
    return _epoch_real(Real(f"{whole or '0'}.{kept}"))


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


def _iso(text: str, zone: tzinfo, local_times: LocalTimes | None) -> int | None:
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
        offset, other = (_offset(local.replace(tzinfo=zone, fold=fold)) for fold in (0, 1))
        if offset != other:
            return None if local_times is None else local_times.choose((local - _EPOCH) // _MICROSECOND, offset, other)
    return (local - _EPOCH) // _MICROSECOND - offset


def _offset(local: datetime) -> int:
    return (local.utcoffset() or timedelta()) // _MICROSECOND


def format_time(micros: int) -> str:
    """ISO 8601 in UTC with six digits and Z; beyond the years 1..9999 the number itself."""
    try:
        return (_EPOCH + timedelta(microseconds=micros)).isoformat(timespec="microseconds") + "Z"
    except OverflowError:
        return f"{micros} µs"
