"""Many payloads parsed at once, and the bytes searched for what a parse can hide: only the source shows an overwritten member."""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from iot_platform.telemetry.decode.document import MAX_DOUBLE_DIGITS, nested_too_deep
from iot_platform.telemetry.decode.limits import MAX_LEVELS

_TO_ZERO = bytes.maketrans(b"123456789", b"000000000")
_LONG_NUMBER = b"0" * MAX_DOUBLE_DIGITS
_LONG_PAYLOAD = MAX_DOUBLE_DIGITS + len('{"":}')
_NUL_ESCAPE = b"\\u0000"
_PARSE_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def parse_all(payloads: Sequence[bytes]) -> list[Any]:
    """The documents; None where there is none (or null): those are the plain decoder's."""
    decode = msgspec.json.Decoder().decode
    documents: list[Any] = []
    rest = iter(payloads)
    while len(documents) < len(payloads):
        try:
            documents.extend(map(decode, rest))  # keeps what came before an error
        except _PARSE_ERRORS:
            documents.append(None)
    return documents


def suspicious(payloads: Sequence[bytes]) -> set[int]:
    """Rows whose bytes may hold, perhaps unused, U+0000, a number beyond a double, or too many levels: the plain decoder's."""
    found: set[int] = set()
    whole = b"".join(payloads)
    if b"\\" in whole and _NUL_ESCAPE in whole:
        found.update(row for row, payload in enumerate(payloads) if _NUL_ESCAPE in payload)
    lengths = np.fromiter(map(len, payloads), np.int64, len(payloads))
    for row in np.flatnonzero(lengths >= _LONG_PAYLOAD).tolist():
        if _LONG_NUMBER in payloads[row].translate(_TO_ZERO):
            found.add(row)
    openers = np.flatnonzero((np.frombuffer(whole, np.uint8) | 32) == ord("{"))  # both brackets: [ is { without bit 5
    ends = np.cumsum(lengths)
    counts = np.diff(np.searchsorted(openers, ends), prepend=0)
    found.update(row for row in np.flatnonzero(counts > MAX_LEVELS).tolist() if nested_too_deep(payloads[row]))
    return found
