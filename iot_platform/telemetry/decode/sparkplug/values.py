"""Values of Sparkplug B by their datatype: what the encoders of all languages mean by what is on the wire."""

import struct
from collections.abc import Callable
from typing import Any, Final

from iot_platform.telemetry.decode.reasons import Reason, Rejection, excerpt

INT8, INT16, INT32, INT64, UINT8, UINT16, UINT32, UINT64, FLOAT, DOUBLE, BOOLEAN, STRING, DATETIME, TEXT, UUID = range(1, 16)
DATASET, BYTES, FILE, TEMPLATE, PROPERTY_SET, PROPERTY_SET_LIST = range(16, 22)
FIRST_ARRAY: Final = 22
LAST: Final = 34

_SIGNED_BITS: Final = {INT8: 8, INT16: 16, INT32: 32, INT64: 64, DATETIME: 64}
_UNSIGNED_BITS: Final = {UINT8: 8, UINT16: 16, UINT32: 32, UINT64: 64}
_CONTAINER_BITS: Final = {"int_value": 32, "long_value": 64}
_NUMBER_ARRAYS: Final = {22: "b", 23: "h", 24: "i", 25: "q", 26: "B", 27: "H", 28: "I", 29: "Q", 30: "f", 31: "d", 34: "q"}
_BOOLEANS, _STRINGS = 32, 33


def fail(what: str) -> Rejection:
    """The rejection of a payload that is not Sparkplug B."""
    return Rejection(Reason.BAD_ENCODING, f"Sparkplug B: {what}")


def value_of(name: str, datatype: int, message: Any) -> Any:
    """The value of a metric, parameter or element, in whichever container it is; DataSets and Templates are not read here.

    Raises:
        Rejection: bad_encoding where container and datatype contradict each other, or the number is outside of the datatype.
    """
    container = message.WhichOneof("value")  # never message.int_value: 0 would stand for what is not there
    if container is None:
        raise fail(f"metric {excerpt(name)} has no value and does not say that it is null")
    value = getattr(message, container)
    reader = _READERS.get(datatype)
    if reader is None:
        raise fail(f"metric {excerpt(name)} has datatype {datatype}, which does not exist")
    read = reader(datatype, container, value)
    if read is None:
        raise fail(f"metric {excerpt(name)}: a value of datatype {datatype} is no {container}, or outside of its range")
    return read


def _integer(datatype: int, container: str, value: Any) -> int | None:
    """Signed ones come as the low bits of their width, or with their sign extended to the container."""
    width = _CONTAINER_BITS.get(container)
    if width is None:
        return None
    if (bits := _UNSIGNED_BITS.get(datatype)) is not None:
        return int(value) if value < 1 << bits else None
    bits = _SIGNED_BITS[datatype]
    if bits > width:  # 32 bits for a 64-bit datatype: whether the sign was cut off, nobody knows
        return int(value) if value < 1 << (width - 1) else None
    half = 1 << (bits - 1)
    if value < 1 << bits:
        return int(value) - (1 << bits if value >= half else 0)
    extended = int(value) - (1 << width)
    return extended if extended >= -half else None


def _real(_: int, container: str, value: Any) -> float | None:
    """Exactly what is on the wire: a float32 is widened, not rounded to what a person would write."""
    return float(value) if container in ("float_value", "double_value") else None


def _boolean(_: int, container: str, value: Any) -> bool | None:
    return bool(value) if container == "boolean_value" else None


def _string(_: int, container: str, value: Any) -> str | None:
    return str(value) if container == "string_value" else None


def _bytes(_: int, container: str, value: Any) -> bytes | None:
    return bytes(value) if container == "bytes_value" else None


def _array(datatype: int, container: str, value: Any) -> list[Any] | None:
    """Packed, little-endian; booleans: their count, then bits from the most significant on; strings each end in a zero byte."""
    if container != "bytes_value":
        return None
    if datatype == _BOOLEANS:
        return _booleans(value)
    if datatype == _STRINGS:
        return _texts(value)
    kind = _NUMBER_ARRAYS[datatype]
    count, rest = divmod(len(value), struct.calcsize("<" + kind))
    return None if rest else list(struct.unpack(f"<{count}{kind}", value))


def _booleans(value: bytes) -> list[bool] | None:
    if len(value) < 4:
        return None
    (count,) = struct.unpack_from("<I", value)
    if len(value) != 4 + (count + 7) // 8:
        return None
    return [bool(value[4 + at // 8] >> (7 - at % 8) & 1) for at in range(count)]


def _texts(value: bytes) -> list[str] | None:
    if value and value[-1]:
        return None
    try:
        return value.decode().split("\0")[:-1]
    except UnicodeDecodeError:
        return None


_Reader = Callable[[int, str, Any], Any]
_READERS: Final[dict[int, _Reader]] = {
    **dict.fromkeys((*_SIGNED_BITS, *_UNSIGNED_BITS), _integer),
    **dict.fromkeys((FLOAT, DOUBLE), _real),
    BOOLEAN: _boolean,
    **dict.fromkeys((STRING, TEXT, UUID), _string),
    **dict.fromkeys((BYTES, FILE), _bytes),
    **dict.fromkeys(range(FIRST_ARRAY, LAST + 1), _array),
}


def table_of(name: str, message: Any) -> list[list[Any]]:
    """A DataSet: its column names, then its rows; a cell that is not there is null. Raises as value_of."""
    columns, types = list(message.columns), list(message.types)
    if len(columns) != len(types) or (message.HasField("num_of_columns") and message.num_of_columns != len(columns)):
        raise fail(f"the DataSet of metric {excerpt(name)} has not as many types as columns")
    rows: list[list[Any]] = [columns]
    for row in message.rows:
        if len(row.elements) != len(columns):
            raise fail(f"a row of the DataSet of metric {excerpt(name)} has {len(row.elements)} values for {len(columns)} columns")
        cells = zip(types, row.elements, strict=True)
        rows.append([None if cell.WhichOneof("value") is None else value_of(name, datatype, cell) for datatype, cell in cells])
    return rows
