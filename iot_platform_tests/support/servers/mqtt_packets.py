"""MQTT's control packets as bytes, for brokers of a few lines and for what listens between a broker and the daemon."""

import struct

CONNECT, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP = 1, 3, 4, 5, 6, 7
SUBSCRIBE, UNSUBSCRIBE, PINGREQ, DISCONNECT = 8, 10, 12, 14
PINGRESP = b"\xd0\x00"


def variable(data: bytes, position: int) -> tuple[int, int]:
    """A variable byte integer, and how many bytes it takes."""
    value = size = 0
    while True:
        digit = data[position + size]
        value |= (digit & 0x7F) << 7 * size
        size += 1
        if digit < 0x80:
            return value, size


def body_of(packet: bytes) -> bytes:
    """What follows type, flags and length of a whole packet."""
    return packet[1 + variable(packet, 1)[1] :]


def packet_of(first: int, body: bytes) -> bytes:
    """A whole packet. `first`: type and flags."""
    length, out = len(body), bytearray([first])
    while True:
        length, low = divmod(length, 128)
        out.append(low | (0x80 if length else 0))
        if not length:
            return bytes(out) + body


def publish_packet(topic: str, packet_id: int, payload: bytes, *, first: int = 0x32, v5: bool = False) -> bytes:
    """A PUBLISH with QoS 1 unless `first` says otherwise."""
    name = topic.encode()
    return packet_of(first, struct.pack("!H", len(name)) + name + struct.pack("!H", packet_id) + (b"\0" if v5 else b"") + payload)
