"""CBOR (RFC 8949) by cbor2: one item that fills the payload. Tags are skipped, but for numbers and for what refers to other parts."""

from decimal import Decimal
from fractions import Fraction
from io import BytesIO
from typing import Any, Final

from cbor2 import CBORDecodeError, CBORDecoder, undefined

from iot_platform.telemetry.decode.codecs.codec import Codec, Record
from iot_platform.telemetry.decode.codecs.tree import Tree
from iot_platform.telemetry.decode.document import Document, Json
from iot_platform.telemetry.decode.limits import MAX_LEVELS
from iot_platform.telemetry.decode.reasons import Reason, Rejection

MAX_DEPTH: Final = 400
"""cbor2's own limit counts tags too, so it lies above the contract's."""
MAX_MANTISSA_BITS: Final = 65_536
_FAR: Final = 10**6  # an exponent beyond any double, and near enough for decimal arithmetic

# Beside tags that cbor2 gives as CBORTag: what it would build of these is no value of a document. RFC 8949, 3.4: a tag may be skipped.
_SKIPPED: Final = (0, 1, 30, 52, 54, 100, 1004, 55799)
_REFUSED: Final = {
    **dict.fromkeys((25, 256), "string references"),
    **dict.fromkeys((28, 29), "shared references"),
    35: "a regular expression",
    36: "a MIME message",
    37: "a UUID",
    258: "a set",
    43000: "a complex number",
    **dict.fromkeys((260, 261), "a network address"),
}


class CborCodec(Codec):
    """No options."""

    def read(self, payload: bytes, record: Record) -> Document:
        return read_cbor(payload)


class _CborTree(Tree):
    def other(self, value: Any, level: int) -> Json:
        return None if value is undefined else super().other(value, level)


def read_cbor(payload: bytes) -> Document:
    """The document in a payload.

    Raises:
        Rejection: bad_encoding, not_utf8 or too_deep.
    """
    return _CborTree().document(load_cbor(payload))


def load_cbor(payload: bytes, *, integer_keys: bool = False) -> Any:
    """The item as cbor2 gives it, for formats on top of CBOR: dict or another Mapping, list or tuple, Decimal for tag 4.

    Keys are texts or bytes, of repeated ones the last counts. With integer_keys a key may be anything, and a repeated one is
    bad_encoding (for cbor2, 1, true and 1.0 are one key).

    Raises:
        Rejection: as read_cbor.
    """
    source = BytesIO(payload)
    decoder = CBORDecoder(
        source,
        max_depth=MAX_DEPTH,
        strict_hashable_types=not integer_keys,
        allow_duplicate_keys=not integer_keys,
        semantic_decoders=_SEMANTICS,
        tag_hook=lambda tag, _: tag.value,
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
        return Rejection(Reason.TOO_DEEP, f"objects and arrays are nested more than {MAX_LEVELS} levels deep")
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, Rejection):
            return cause
        if isinstance(cause, UnicodeDecodeError):
            return Rejection(Reason.NOT_UTF8, f"CBOR: a text is not UTF-8: {cause.reason}")
        cause = cause.__cause__
    return Rejection(Reason.BAD_ENCODING, f"CBOR: {text}")


def _skip(value: Any, _immutable: bool) -> Any:
    return value


def _refuse(number: int, what: str) -> Any:
    def refuse(_value: Any, _immutable: bool) -> Any:
        raise Rejection(Reason.BAD_ENCODING, f"CBOR: tag {number} ({what}) is not taken")

    return refuse


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
    **dict.fromkeys(_SKIPPED, _skip),
    **{number: _refuse(number, what) for number, what in _REFUSED.items()},
    4: _decimal_fraction,
    5: _bigfloat,
}
