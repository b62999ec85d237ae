"""MessagePack by msgpack: one object that fills the payload."""

from typing import Any, Final

import msgpack

from iot_platform.telemetry.decode.codecs.codec import Codec, Record
from iot_platform.telemetry.decode.codecs.tree import Tree
from iot_platform.telemetry.decode.document import Document, Instant, Json
from iot_platform.telemetry.decode.reasons import Reason, Rejection, not_utf8, too_deep

_UNDEFINED: Final = msgpack.ExtType(0, b"\0")
"""JavaScript's undefined, as msgpackr writes it."""
_TIME_OF_TINYLIB: Final = 5
"""Extension of Go's tinylib/msgp: int64 seconds, int32 nanoseconds."""


class MsgpackCodec(Codec):
    """No options."""

    def read(self, payload: bytes, record: Record) -> Document:
        return read_msgpack(payload)


class _Pairs(list[tuple[Any, Any]]):
    """The members of a map, repeated keys too."""


class _MsgpackTree(Tree):
    def other(self, value: Any, level: int) -> Json:
        if type(value) is _Pairs:
            return self.members(value, level)
        if type(value) is msgpack.Timestamp:
            return Instant.of(value.seconds * 10**9 + value.nanoseconds)
        if type(value) is msgpack.ExtType:
            return _extension(value)
        return super().other(value, level)


def read_msgpack(payload: bytes) -> Document:
    """The document in a payload.

    Raises:
        Rejection: bad_encoding, not_utf8 or too_deep.
    """
    try:
        value = msgpack.unpackb(payload, timestamp=0, strict_map_key=True, object_pairs_hook=_Pairs)
    except msgpack.StackError:
        raise too_deep() from None
    except UnicodeDecodeError as error:
        raise not_utf8(error, "MessagePack: a text") from None
    except (ValueError, msgpack.UnpackException) as error:
        raise Rejection(Reason.BAD_ENCODING, f"MessagePack: {str(error) or type(error).__name__}") from None
    return _MsgpackTree().document(value)


def _extension(value: Any) -> Json:
    if value == _UNDEFINED:
        return None
    if value.code == _TIME_OF_TINYLIB and len(value.data) == 12:
        seconds = int.from_bytes(value.data[:8], signed=True)
        nanos = int.from_bytes(value.data[8:], signed=True)
        if 0 <= nanos < 10**9:
            return Instant.of(seconds * 10**9 + nanos)
    raise Rejection(Reason.BAD_ENCODING, f"MessagePack: extension {value.code} of {len(value.data)} bytes is not taken")
