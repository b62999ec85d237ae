"""The one Kafka header of a forwarded message: who received it, on which connection, its sequence number, when."""

import struct
from collections.abc import Iterable

from ingest_daemon.transport import DUP, RETAIN

HEADER = "iot"
VERSION = 1
VERSION_WITH_RECEIPTS = 2

FLAGS_OF_FIRST_BYTE = tuple(bool(first & DUP) | bool(first & RETAIN) << 1 | (first >> 1 & 3) << 2 for first in range(256))
"""Flags of a PUBLISH packet by its first byte: bit 0 DUP, bit 1 RETAIN, bits 2-3 QoS."""

_FIXED = struct.Struct("!BBHqqQ")
pack_fixed = _FIXED.pack
"""What the header begins with: version, flags, MQTT packet id (0 for QoS 0), receive time (µs since the epoch), connection number (grows;
µs since the epoch unless the clock was set back), sequence within the connection from 1. The MQTT client id (UTF-8) follows."""

# Version 2 has more before the client id: the connection up to which the sender knows what the broker may send again (0: none), the number
# of earlier receipts of the same message, and of each its connection number, sequence and receive time.
_KNOWN, _RECEIPT = struct.Struct("!qB"), struct.Struct("!qQq")


def pack(  # noqa: PLR0917  as in a packet and the header
    first_byte: int, packet_id: int, received_at_us: int, connection_number: int, sequence: int, client_id: bytes
) -> bytes:
    """The header's value for a PUBLISH packet that begins with `first_byte`. The daemon's loop does it in place: a call costs."""
    return pack_fixed(VERSION, FLAGS_OF_FIRST_BYTE[first_byte], packet_id, received_at_us, connection_number, sequence) + client_id


def with_receipts(header: bytes, known: int, receipts: Iterable[tuple[int, int, int]]) -> bytes:
    """The header as version 2: the same message came before in these receipts (oldest first; at most 255), of which each may be in Kafka.

    Without any it says that the message is no redelivery of what came on connection `known` or an earlier one, whatever its DUP flag says.
    """
    packed = [_RECEIPT.pack(*receipt) for receipt in receipts]
    size = _FIXED.size
    return b"".join((bytes((VERSION_WITH_RECEIPTS,)), header[1:size], _KNOWN.pack(known, len(packed)), *packed, header[size:]))
