"""SenML (RFC 8428), in JSON and CBOR: base fields hold until they are changed, values and times are added as decimals."""

import base64
import binascii
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, ROUND_HALF_EVEN, Context, Decimal
from typing import Any, Final

from iot_platform.telemetry.decode.codecs.cbor_codec import load_cbor
from iot_platform.telemetry.decode.codecs.codec import Codec, Points, Reading, Record
from iot_platform.telemetry.decode.document import Real, read_json
from iot_platform.telemetry.decode.limits import MAX_MEASUREMENTS
from iot_platform.telemetry.decode.reasons import Reason, Rejection, beyond_double, excerpt, nul_character

VERSION: Final = 10
RELATIVE_BELOW: Final = 2**28
"""A time whose absolute value in seconds is less counts from now: 268435455 lies 8.5 years ahead, 268435456 in July 1978."""
SUM_SUFFIX: Final = ".sum"

_CBOR_LABELS: Final = {
    -1: "bver",
    -2: "bn",
    -3: "bt",
    -4: "bu",
    -5: "bv",
    -6: "bs",
    0: "n",
    1: "u",
    2: "v",
    3: "vs",
    4: "vb",
    5: "s",
    6: "t",
    7: "ut",
    8: "vd",
}
_LABELS: Final = frozenset(_CBOR_LABELS.values())
_VALUES: Final = ("v", "vs", "vb", "vd")
_OWN: Final = frozenset({"n", "t", "s", *_VALUES})
_SEPARATORS: Final = ":/"
_EXACT = Context(prec=MAX_PREC, Emax=MAX_EMAX, Emin=MIN_EMIN)
_ONE = Decimal(1)
_LARGEST = Decimal(float(2**1023) * (2 - 2.0**-52))
_LEAST_EXPONENT = -400  # no double is that small


class SenMLJsonCodec(Codec):
    """No options. A topic that names no device leaves it to the base name, and the metric is what follows it; else the metric is the whole
    name. A sum is a metric of its own, named with SUM_SUFFIX."""

    def read(self, payload: bytes, record: Record) -> Points:
        document = read_json(payload)
        if document.overflow is not None:
            raise beyond_double(document.overflow)
        if document.nul:
            raise nul_character()
        return _pack(document.value, record, cbor=False)


class SenMLCborCodec(Codec):
    """As SenMLJsonCodec."""

    def read(self, payload: bytes, record: Record) -> Points:
        return _pack(load_cbor(payload, integer_keys=True), record, cbor=True)


def _pack(pack: Any, record: Record, *, cbor: bool) -> Points:
    if not isinstance(pack, list | tuple):
        raise Rejection(Reason.BAD_ENCODING, "SenML: the document is no list of records")
    base = _Base()
    readings: list[Reading] = []
    for number, raw in enumerate(pack, 1):
        fields = _labelled(raw, number, cbor)
        base.take(fields, number)
        readings += _readings(fields, base, number, record, cbor)
        if len(readings) > MAX_MEASUREMENTS:
            break  # too many values, whatever follows
    return Points(readings)


def _named(base: str, name: str, record: Record) -> tuple[str, str | None]:
    """Metric and device (None: the message's)."""
    if record.names.device is not None or not name or not (device := base.rstrip(_SEPARATORS)):
        return base + name, None
    return name, device


def _fail(number: int, what: str) -> Rejection:
    return Rejection(Reason.BAD_ENCODING, f"SenML: record {number}: {what}")


def _labelled(raw: Any, number: int, cbor: bool) -> dict[str, Any]:
    """The fields that we know, by their JSON labels. What is unknown is passed over, unless it may not be."""
    if not isinstance(raw, Mapping):
        raise _fail(number, "it is no object")
    record: dict[str, Any] = {}
    for label, value in raw.items():
        known = _CBOR_LABELS.get(label) if cbor and isinstance(label, int) and not isinstance(label, bool) else label
        if isinstance(known, str) and known.endswith("_"):
            raise _fail(number, f"label {excerpt(known)} must be understood, and is not")
        if isinstance(known, str) and known in _LABELS:
            if known in record:
                raise _fail(number, f"label {excerpt(known)} is there twice")
            record[known] = value
    return record


@dataclass(slots=True)
class _Base:
    """Base fields as they hold after the records so far."""

    name: str = ""
    time: Decimal = field(default_factory=Decimal)
    value: Decimal | int | None = None
    sum: Decimal | int | None = None
    version: int | None = None

    def take(self, record: dict[str, Any], number: int) -> None:
        if "bn" in record:
            self.name = _text(record, "bn", number)
        if "bt" in record:
            self.time = Decimal(_number(record, "bt", number))
        if "bv" in record:
            self.value = _number(record, "bv", number)
        if "bs" in record:
            self.sum = _number(record, "bs", number)
        if "bver" in record:
            version = _number(record, "bver", number)
            if self.version not in (None, version):
                raise _fail(number, "records of one pack have different versions")
            if not 0 < version <= VERSION:
                raise _fail(number, f"version {excerpt(str(version))} is none that we know; they go to {VERSION}")
            self.version = int(version)


def _readings(fields: dict[str, Any], base: _Base, number: int, record: Record, cbor: bool) -> Iterator[Reading]:
    if not _OWN & fields.keys():
        return  # only base fields
    present = [label for label in _VALUES if label in fields]
    if len(present) > 1:
        raise _fail(number, f"it has {present[0]} and {present[1]}: a record has one value")
    if not present and "s" not in fields:
        raise _fail(number, "it has neither a value nor a sum")
    name = _text(fields, "n", number) if "n" in fields else ""
    if not base.name + name:
        raise _fail(number, "it has no name")
    time = _time(base.time, fields, number, record.received_at)
    metric, device = _named(base.name, name, record)
    if present:
        yield Reading(metric, _value(fields, present[0], base, number, cbor), time, device)
    if "s" in fields or base.sum is not None:
        total = _added(_number(fields, "s", number) if "s" in fields else 0, base.sum)
        yield Reading(metric + SUM_SUFFIX, total, time, device)


def _value(fields: dict[str, Any], label: str, base: _Base, number: int, cbor: bool) -> Any:
    value = fields[label]
    if label == "v":
        return _added(_number(fields, "v", number), base.value)
    if label == "vs":
        return _text(fields, "vs", number)
    if label == "vd":
        return _data(value, number, cbor)
    if not isinstance(value, bool):
        raise _fail(number, "vb is no boolean")
    return value


def _data(value: Any, number: int, cbor: bool) -> bytes:
    """In JSON base64url, padded or not."""
    if cbor:
        if not isinstance(value, bytes):
            raise _fail(number, "vd is no byte string")
        return value
    try:
        text = value.rstrip("=").encode("ascii")
        return base64.b64decode(text + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (AttributeError, UnicodeEncodeError, binascii.Error):
        raise _fail(number, "vd is no base64url") from None


def _text(record: dict[str, Any], label: str, number: int) -> str:
    value = record[label]
    if not isinstance(value, str):
        raise _fail(number, f"{label} is no text")
    return value


def _number(record: dict[str, Any], label: str, number: int) -> Decimal | int:
    """A number with all its digits: an integer, or a decimal."""
    value = record[label]
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise _fail(number, f"{label} is no number")
    if isinstance(value, int):
        return value
    text = value.token if isinstance(value, Real) else str(value)
    exact = value if isinstance(value, Decimal) else Decimal(text)
    if not exact.is_finite() or exact.adjusted() > 308 or exact.copy_abs() > _LARGEST:
        raise beyond_double(text)
    return Decimal(0) if exact.adjusted() < _LEAST_EXPONENT else exact


def _added(one: Decimal | int, other: Decimal | int | None) -> Decimal | int:
    if other is None:
        return one
    if isinstance(one, int) and isinstance(other, int):
        return one + other
    return _EXACT.add(Decimal(one), Decimal(other))


def _time(base: Decimal, record: dict[str, Any], number: int, received_at: int) -> int | None:
    seconds = _EXACT.add(base, Decimal(_number(record, "t", number))) if "t" in record else base
    if not seconds:
        return None
    micros = int(seconds.scaleb(6, _EXACT).quantize(_ONE, ROUND_HALF_EVEN, _EXACT))
    return received_at + micros if seconds.copy_abs() < RELATIVE_BELOW else micros
