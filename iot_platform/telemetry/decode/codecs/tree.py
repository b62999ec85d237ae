"""Values of binary formats as the values of a document: numbers with their digits, bytes as text, absent values as null."""

from base64 import urlsafe_b64encode
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from iot_platform.telemetry.decode.document import Document, Json, Real
from iot_platform.telemetry.decode.limits import MAX_LEVELS
from iot_platform.telemetry.decode.reasons import Reason, Rejection, excerpt, too_deep

MAX_WHOLE = 2**53  # up to here every whole float64 is one integer
MAX_DOUBLE_EXPONENT = 308


class Tree:
    """Builds documents; remembers what quarantines a message even in parts that give no measurement, as the JSON reader does."""

    def __init__(self) -> None:
        self.overflow: str | None = None
        self.nul = False

    def document(self, value: Any) -> Document:
        """A whole document. Raises Rejection, as `take` does."""
        return Document(self.take(value), self.overflow, self.nul)

    def take(self, value: Any, level: int = 0) -> Json:
        """One value, `level` objects and arrays deep: its width and type in the format carry no meaning.

        A whole float is the integer, a decimal keeps its digits, bytes are base64url text without padding (RFC 8949, 6.1).

        Raises:
            Rejection: too_deep; bad_encoding for a key that is no text, and for types that no document has.
        """
        kind = type(value)
        if kind is str:
            return self._text(value)
        if kind is bool or value is None:
            return value  # type: ignore[no-any-return]
        if kind is float:
            return self._real(value)
        if kind is int:
            return self._integer(value)
        if kind is list or kind is tuple:
            _judge_level(level)
            return [self.take(item, level + 1) for item in value]
        if isinstance(value, Mapping):
            return self.members(value.items(), level)
        if kind is Decimal:
            return self._decimal(value)
        if kind is bytes:
            return urlsafe_b64encode(value).rstrip(b"=").decode()
        return self.other(value, level)

    def members(self, pairs: Iterable[tuple[Any, Any]], level: int) -> Json:
        """An object; of repeated keys the last one counts."""
        _judge_level(level)
        return {self._key(key): self.take(item, level + 1) for key, item in pairs}

    def other(self, value: Any, level: int) -> Json:
        """A value of a type that only one format has; each overrides it for its own. Raises Rejection bad_encoding."""
        if isinstance(value, Real):
            return value if value - value == 0.0 else self._beyond(value.token, value < 0)
        raise Rejection(Reason.BAD_ENCODING, f"a value of type {type(value).__name__} is no number, text, boolean, object or array")

    def _key(self, key: Any) -> str:
        if type(key) is not str:
            raise Rejection(Reason.BAD_ENCODING, f"the key {excerpt(repr(key))} is no text")
        return self._text(key)

    def _text(self, text: str) -> str:
        self.nul = self.nul or "\x00" in text
        return text

    def _integer(self, value: int) -> int | Real:
        try:
            float(value)
        except OverflowError:
            return self._beyond(f"an integer of {value.bit_length()} bits", value < 0)
        return value

    def _real(self, value: float) -> int | Real:
        if value - value != 0.0:  # NaN, Infinity
            return self._beyond(repr(value), value < 0)
        if value.is_integer() and abs(value) <= MAX_WHOLE and (value or str(value) == "0.0"):  # not -0.0
            return int(value)
        return Real(repr(value))

    def _decimal(self, value: Decimal) -> int | Real:
        if value == 0:
            return Real("-0.0") if value.is_signed() else 0
        if not value.is_finite() or value.adjusted() > MAX_DOUBLE_EXPONENT:
            return self._beyond(str(value), value.is_signed())
        if value.adjusted() >= 0 and value == value.to_integral_value():
            return self._integer(int(value))
        return Real(str(value))

    def _beyond(self, written: str, negative: bool) -> Real:
        self.overflow = written
        return Real("-inf" if negative else "inf")


def _judge_level(level: int) -> None:
    if level >= MAX_LEVELS:
        raise too_deep()
