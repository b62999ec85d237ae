"""Digits that a double can not give back: arrays as text keep them, and the columnar decoder leaves such records to the plain one."""

import json
import re
from decimal import Decimal

from iot_platform.telemetry.decode.document import Json, Real

_SHORT = 16  # 15 digits and a point: the double's shortest form always is the same number
_compact = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode
_TO_ZERO = bytes.maketrans(b"123456789.E", b"0000000000e")
_LONG_RUN = b"0" * (_SHORT + 1)
_NUMBER = re.compile(rb"[0-9]+(?:\.[0-9]+(?:[eE][+-]?[0-9]+)?|[eE][+-]?[0-9]+)")


def compact_json(value: Json) -> str:
    """Compact JSON. Numbers have the shortest digits of their double, or their own where those are another number."""
    return _exact(value) if _has_digits(value) else _compact(value)


def may_lose_digits(payload: bytes) -> bool:
    """Whether a JSON document may hold such a number; no is certain."""
    runs = payload.translate(_TO_ZERO)
    return (_LONG_RUN in runs or b"0e" in runs) and any(_is_inexact(token.decode()) for token in _NUMBER.findall(payload))


def _has_digits(value: Json) -> bool:
    if isinstance(value, list):
        return any(map(_has_digits, value))
    if isinstance(value, dict):
        return any(map(_has_digits, value.values()))
    return isinstance(value, Real) and _is_inexact(value.token)


def _exact(value: Json) -> str:
    if isinstance(value, list):
        return "[" + ",".join(map(_exact, value)) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{_compact(key)}:{_exact(item)}" for key, item in value.items()) + "}"
    return value.token if isinstance(value, Real) and _is_inexact(value.token) else _compact(value)


def _is_inexact(token: str) -> bool:
    """Whether a number with fraction or exponent differs from the shortest form of its double."""
    if len(token) <= _SHORT and "e" not in token and "E" not in token:
        return False
    double = float(token)
    shortest = repr(double)
    if token == shortest:
        return False
    if double == 0.0:  # perhaps an underflow, whose exponent may be beyond decimal arithmetic
        return any(digit in "123456789" for digit in re.split("[eE]", token)[0])
    return double - double == 0.0 and Decimal(token) != Decimal(shortest)
