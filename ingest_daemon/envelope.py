"""The one Kafka header of a forwarded message: who received it, on which connection, its sequence number, when."""

import struct
from collections.abc import Iterable

HEADER = "iot"
VERSION = 1
VERSION_WITH_RECEIPTS = 2

DUP, RETAIN, QOS_SHIFT = 0b0001, 0b0010, 2

# version, flags, MQTT packet id, received at (µs since the epoch), connection number (grows; µs since the epoch unless the clock was set
# back), sequence within the connection from 1; the MQTT client id (UTF-8) follows.
_FIXED = struct.Struct("!BBHqqQ")
_pack = _FIXED.pack
# Version 2 has more before the client id: the connection up to which the sender knows what the broker may send again (0: none), the number
# of earlier receipts of the same message, and of each its connection number, sequence and receive time.
_KNOWN, _RECEIPT = struct.Struct("!qB"), struct.Struct("!qQq")

_FLAGS_OF_FIRST_BYTE = tuple(bool(first & 0x08) * DUP | bool(first & 0x01) * RETAIN | (first >> 1 & 3) << QOS_SHIFT for first in range(16))


def flags_of(first_byte: int) -> int:
    """Envelope flags of a PUBLISH packet's first byte: bit 0 DUP, bit 1 RETAIN, bits 2-3 QoS."""
    return _FLAGS_OF_FIRST_BYTE[first_byte & 15]


def pack(  # noqa: PLR0917  hot path: keywords cost
    first_byte: int, packet_id: int, received_at_us: int, connection_number: int, sequence: int, client_id: bytes
) -> bytes:
    """The header's value for a PUBLISH packet that begins with `first_byte`; `packet_id` is 0 for QoS 0."""
    return _pack(VERSION, _FLAGS_OF_FIRST_BYTE[first_byte & 15], packet_id, received_at_us, connection_number, sequence) + client_id


def with_receipts(header: bytes, known: int, receipts: Iterable[tuple[int, int, int]]) -> bytes:
    """The header as version 2: the same message came before in these receipts (oldest first; at most 255), of which each may be in Kafka.

    Without any it says that the message is no redelivery of what came on connection `known` or an earlier one, whatever its DUP flag says.
    """
    packed = [_RECEIPT.pack(*receipt) for receipt in receipts]
    size = _FIXED.size
    return b"".join((bytes((VERSION_WITH_RECEIPTS,)), header[1:size], _KNOWN.pack(known, len(packed)), *packed, header[size:]))
