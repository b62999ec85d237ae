"""CBOR (RFC 8949) by cbor2: one item that fills the payload. Of tags, those are taken whose content is the value."""

from collections.abc import Collection
from decimal import Decimal
from fractions import Fraction
from io import BytesIO
from typing import Annotated, Any, Final

import numpy as np
from cbor2 import CBORDecodeError, CBORDecoder, CBORTag, undefined
from pydantic import Field, field_validator

from iot_platform.telemetry.decode.codecs.codec import Codec, Record
from iot_platform.telemetry.decode.codecs.tree import Tree
from iot_platform.telemetry.decode.document import Document, Json
from iot_platform.telemetry.decode.reasons import Reason, Rejection, not_utf8, too_deep

MAX_DEPTH: Final = 400
"""cbor2's own limit counts tags too, so it lies above the contract's."""
MAX_MANTISSA_BITS: Final = 65_536
_FAR: Final = 10**6  # an exponent beyond any double, and near enough for decimal arithmetic

_PLAIN: Final = frozenset({0, 1, 21, 22, 23, 24, 32, 33, 34, 100, 259, 1004, 55799})
"""Tags that say what a value is for: a time or date (IOT_TIME_POINTERS say which field is one), a Map, bytes or text of some format."""
_REFUSED: Final = {
    **dict.fromkeys((25, 256), "string references"),
    **dict.fromkeys((28, 29), "shared references"),
    30: "a rational",
    35: "a regular expression",
    36: "a MIME message",
    37: "a UUID",
    258: "a set",
    43000: "a complex number",
    **dict.fromkeys((52, 54, 260, 261), "a network address"),
}
# RFC 8746: typed arrays, big endian and little endian
_NUMPY: Final = ("u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8")
_TYPED: Final = {
    **{tag: f">{kind}" for tag, kind in zip((64, 65, 66, 67, 72, 73, 74, 75, 80, 81, 82), _NUMPY, strict=True)},
    **{tag: f"<{kind}" for tag, kind in zip((68, 69, 70, 71, 77, 78, 79, 84, 85, 86), (*_NUMPY[:4], *_NUMPY[5:]), strict=True)},
}


class CborCodec(Codec):
    """`skip_tags`: more tags (private ones) whose content is the value."""

    skip_tags: tuple[Annotated[int, Field(ge=0, lt=2**64)], ...] = ()

    @field_validator("skip_tags")
    @classmethod
    def _not_ours(cls, tags: tuple[int, ...]) -> tuple[int, ...]:
        if ours := sorted({*_REFUSED, *_TYPED, 2, 3, 4, 5} & set(tags)):
            raise ValueError(f"tag {ours[0]} can not be skipped: its content is not the value")
        return tags

    def read(self, payload: bytes, record: Record) -> Document:
        return _CborTree().document(load_cbor(payload, skip_tags=self.skip_tags))


class _CborTree(Tree):
    def other(self, value: Any, level: int) -> Json:
        return None if value is undefined else super().other(value, level)


def load_cbor(payload: bytes, *, integer_keys: bool = False, skip_tags: Collection[int] = ()) -> Any:
    """The item as cbor2 gives it, for formats on top of CBOR: dict or another Mapping, list or tuple, Decimal for tag 4.

    Keys are texts or bytes, of repeated ones the last counts. With integer_keys a key may be anything, and a repeated one is
    bad_encoding (for cbor2, 1, true and 1.0 are one key).

    Raises:
        Rejection: bad_encoding, not_utf8 or too_deep.
    """

    def tagged(tag: CBORTag, _immutable: bool) -> Any:
        if tag.tag in _PLAIN or tag.tag in skip_tags:
            return tag.value
        if tag.tag in _TYPED:
            return _typed_array(_TYPED[tag.tag], tag.value)
        raise Rejection(Reason.BAD_ENCODING, f"CBOR: tag {tag.tag} is not taken")

    source = BytesIO(payload)
    decoder = CBORDecoder(
        source,
        max_depth=MAX_DEPTH,
        strict_hashable_types=not integer_keys,
        allow_duplicate_keys=not integer_keys,
        semantic_decoders=_SEMANTICS,
        tag_hook=tagged,
    )
    try:
        value = decoder.decode()
    except CBORDecodeError as error:
        raise _rejection(error) from None
    if (used := source.tell()) != len(payload):
        raise Rejection(Reason.BAD_ENCODING, f"CBOR: {len(payload) - used} bytes follow the first item of {used} bytes")
    return value


def _rejection(error: BaseException) -> Rejection:
    text = str(error)
    if text.startswith("maximum container nesting depth"):
        return too_deep()
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, Rejection):
            return cause
        if isinstance(cause, UnicodeDecodeError):
            return not_utf8(cause, "CBOR: a text")
        cause = cause.__cause__
    return Rejection(Reason.BAD_ENCODING, f"CBOR: {text}")


def _skip(value: Any, _immutable: bool) -> Any:
    return value


def _refuse(number: int, what: str) -> Any:
    def refuse(_value: Any, _immutable: bool) -> Any:
        raise Rejection(Reason.BAD_ENCODING, f"CBOR: tag {number} ({what}) is not taken")

    return refuse


def _typed_array(kind: str, value: Any) -> list[Any]:
    if not isinstance(value, bytes) or len(value) % int(kind[2]):
        raise Rejection(Reason.BAD_ENCODING, "CBOR: a typed array needs bytes, a whole number of elements")
    elements: list[Any] = np.frombuffer(value, kind).tolist()
    return elements


def _scaled(value: Any) -> tuple[int, int]:
    """Exponent and mantissa of tags 4 and 5."""
    if not isinstance(value, list | tuple) or len(value) != 2 or any(type(part) is not int for part in value):
        raise Rejection(Reason.BAD_ENCODING, "CBOR: tags 4 and 5 need an array of exponent and mantissa, both integers")
    exponent, mantissa = value
    if mantissa.bit_length() > MAX_MANTISSA_BITS:
        raise Rejection(Reason.BAD_ENCODING, f"CBOR: a mantissa of {mantissa.bit_length()} bits")
    return max(-_FAR, min(exponent, _FAR)), mantissa


def _decimal_fraction(value: Any, _immutable: bool) -> Decimal:
    exponent, mantissa = _scaled(value)
    sign, digits, _ = Decimal(mantissa).as_tuple()
    return Decimal((sign, digits, exponent))


def _bigfloat(value: Any, _immutable: bool) -> float:
    """To the nearest double; Infinity beyond."""
    exponent, mantissa = _scaled(value)
    size = mantissa.bit_length() + exponent
    if mantissa == 0 or size < -1100:
        return 0.0
    if size > 1024:
        return float("-inf" if mantissa < 0 else "inf")
    try:
        return float(Fraction(mantissa * 2**exponent) if exponent >= 0 else Fraction(mantissa, 2**-exponent))
    except OverflowError:
        return float("-inf" if mantissa < 0 else "inf")


_SEMANTICS: Final = {
    **dict.fromkeys((0, 1, 100, 1004, 55799), _skip),  # of _PLAIN, what cbor2 would build of its own
    **{number: _refuse(number, what) for number, what in _REFUSED.items()},
    4: _decimal_fraction,
    5: _bigfloat,
}
