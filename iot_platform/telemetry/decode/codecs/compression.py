"""Compressed payloads: gzip, zlib and raw deflate, whole and checked, within a bound."""

import zlib
from typing import Final, Literal

from iot_platform.telemetry.decode.reasons import Reason, Rejection

Compression = Literal["none", "auto", "gzip", "zlib", "deflate"]

MAX_MEMBERS: Final = 1_000
"""Most gzip members of one payload: empty ones cost time, and 16 MiB in blocks of 64 KiB (bgzip) are 256."""
_WBITS: Final = {"gzip": 31, "zlib": 15, "deflate": -15}
_GZIP_MAGIC: Final = b"\x1f\x8b"
_PIECE: Final = 65_536  # what follows a member is copied for each: never the whole rest


def decompress(payload: bytes, compression: Compression, max_bytes: int) -> bytes:
    """The bytes inside. "auto" takes gzip by its magic, zlib where the whole payload proves to be one stream, all else as it is.

    Raises:
        Rejection: too_large, or bad_compression where the stream is damaged, cut short or followed by something else.
    """
    if compression == "auto":
        if payload.startswith(_GZIP_MAGIC):
            return _inflate(payload, "gzip", max_bytes)
        if not _may_be_zlib(payload):
            return payload
        try:
            return _inflate(payload, "zlib", max_bytes)
        except Rejection as rejection:
            if rejection.reason is Reason.TOO_LARGE:
                raise
            return payload
    return _inflate(payload, compression, max_bytes)


def _may_be_zlib(payload: bytes) -> bool:
    """RFC 1950: the method is deflate, the window at most 32 KiB, the two bytes a multiple of 31; one in 1,000 of all texts is so too."""
    return len(payload) > 2 and payload[0] & 0x8F == 8 and int.from_bytes(payload[:2]) % 31 == 0


def _inflate(payload: bytes, compression: str, max_bytes: int) -> bytes:
    view = memoryview(payload)
    found: list[bytes] = []
    size, position = 0, 0
    for _ in range(MAX_MEMBERS):
        stream = zlib.decompressobj(_WBITS[compression])
        while not stream.eof:
            piece = view[position : position + _PIECE]
            if not piece:
                raise Rejection(Reason.BAD_COMPRESSION, f"{compression}: the payload ends inside the compressed stream")
            position += len(piece)
            try:
                found.append(stream.decompress(piece, max_bytes - size + 1))  # takes the whole piece, or fills the bound
            except zlib.error as error:
                raise Rejection(Reason.BAD_COMPRESSION, f"{compression}: {error}") from None
            size += len(found[-1])
            if size > max_bytes:
                raise Rejection(Reason.TOO_LARGE, f"{len(payload)} bytes decompress to more than IOT_MAX_DECOMPRESSED_BYTES {max_bytes}")
        position -= len(stream.unused_data)
        if compression == "gzip" and payload.startswith(_GZIP_MAGIC, position):
            continue
        rest = bytes(view[position:])
        if rest.strip(b"\0") if compression == "gzip" else rest:
            raise Rejection(Reason.BAD_COMPRESSION, f"{compression}: {len(rest)} bytes follow the compressed stream")
        return b"".join(found)
    raise Rejection(Reason.BAD_COMPRESSION, f"{compression}: more than {MAX_MEMBERS} members")
