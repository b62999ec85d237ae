"""The socket below paho: takes PUBLISH packets out of the stream for the daemon, hands every other packet to paho untouched.

paho spends 15-20 µs on a PUBLISH, this 2. paho keeps the session: CONNECT, SUBSCRIBE, keepalive, DISCONNECT.
"""

import contextlib
import socket
import ssl
import struct
from collections.abc import Callable

from ingest_daemon.errors import ProtocolError
from ingest_daemon.tls_causes import tls_cause

RECEIVE_BYTES = 256 * 1024
# Reading stops at this much input while whole packets of it wait to be taken (it holds whole control packets easily).
PAUSED_BUFFER_BYTES = 64 * 1024
CLOSE_TIMEOUT_SECONDS = 1.0
GREETING_BYTES = 64  # kept of what the broker says first
PUBLISH, PUBREL, PINGRESP = 0x30, 0x62, 0xD0
PINGREQ = b"\xc0\x00"

DUP, QOS_2, RETAIN = 0x08, 0x04, 0x01
"""Bits of a PUBLISH packet's first byte."""
PUBACK, PUBREC = 0x4002_0000, 0x5002_0000  # the whole packet as a number; the packet id is added
BY_PUBREC = PUBREC - PUBACK
"""Added to the packet id of a QoS 2 message where it stands for the acknowledgement."""

Message = tuple[int, bytes, int, bytes]
"""First byte, topic, packet id (0 for QoS 0) and payload of a PUBLISH; a plain tuple, because each costs on the hot path."""


class FrameSocket:
    """Socket-like object for `paho.mqtt.client.Client._create_socket`.

    `receive` reads and splits the stream: it returns the messages; any other packet is offered through `recv` while `on_control` runs.
    PUBREL is answered here: PUBREC, which it follows, went out when the message was safe, so there is nothing left to remember of a
    QoS 2 message, over reconnects and kills, too. `send` only collects; `flush` writes. Nothing here blocks but `close` (bounded).
    """

    def __init__(self, sock: socket.socket, on_control: Callable[[], object], *, properties: bool = True) -> None:
        """`properties`: packets have them (MQTT 5)."""
        self._sock = sock
        self._on_control = on_control
        self._properties = properties
        self._buffer = bytearray()
        self._need = 2  # bytes that the packet at the head of the buffer takes, as far as known
        self._control = bytearray()
        self._output = bytearray()
        self._ended = False
        self.closed = False
        self.blocked = False  # a PUBLISH waits at the head, and the last call was not allowed to take it
        self.failed_tls = False  # whether TLS ended it: `ending` says why
        self.heard = False  # bytes have come since the connection's watch set this back
        self.pings_sent = self.pings_answered = 0
        self.greeting = b""  # the first bytes that came
        self.ending = "the broker closed the connection"  # what ended it, once it has ended

    # -- what paho calls ---------------------------------------------------------------------------------------
    def recv(self, size: int) -> bytes:
        """Bytes of a control packet; b"" at the end of the connection."""
        if not self._control:
            if self._ended:
                return b""
            raise BlockingIOError
        data = bytes(self._control[:size])
        del self._control[:size]
        return data

    def send(self, data: bytes | bytearray) -> int:
        """Collect output; sent by the next `flush`."""
        if self.closed:
            raise BrokenPipeError
        self._output += data
        self.pings_sent += data == PINGREQ
        return len(data)

    def fileno(self) -> int:
        """The descriptor to poll; -1 once closed."""
        return self._sock.fileno()

    def setblocking(self, flag: bool) -> None:
        """Part of paho's socket protocol."""
        self._sock.setblocking(flag)

    def close(self) -> None:
        """Write what is left (bounded), then close. paho closes right after it queued DISCONNECT."""
        if self.closed:
            return
        self.closed = True
        with contextlib.suppress(OSError, ValueError):
            if self._output and not self._ended:
                self._sock.settimeout(CLOSE_TIMEOUT_SECONDS)
                self._sock.sendall(self._output)
        self._sock.close()

    # -- what the daemon's loop calls --------------------------------------------------------------------------
    def acknowledge(self, packet_ids: list[int]) -> None:
        """Queue a PUBACK for each, or a PUBREC where BY_PUBREC was added, in this order."""
        self.send(struct.pack(f"!{len(packet_ids)}I", *[PUBACK + packet_id for packet_id in packet_ids]))

    @property
    def want_write(self) -> bool:
        """Whether `flush` has something left to write."""
        return bool(self._output)

    @property
    def want_read(self) -> bool:
        """Whether the descriptor should be polled for input: not while packets that wait to be taken fill the buffer."""
        return not self._ended and len(self._buffer) < max(self._need, PAUSED_BUFFER_BYTES)

    def pending(self, limit: int) -> bool:
        """Whether `receive(limit)` has work without the descriptor being readable (buffered here or inside TLS)."""
        if self.closed or (self.blocked and limit <= 0):
            return self._ended and not self.closed
        return self._ended or len(self._buffer) >= self._need or (isinstance(self._sock, ssl.SSLSocket) and self._sock.pending() > 0)

    def flush(self) -> None:
        """Write as much as the descriptor takes. A broken connection shows at the next `receive`."""
        if not self._output or self.closed:
            return
        try:
            sent = self._sock.send(self._output)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except OSError as error:
            self._end(error)
            return
        del self._output[:sent]

    def receive(self, limit: int, *, readable: bool) -> list[Message]:
        """Read once if `readable` (bounded), then take at most `limit` messages from the buffer.

        All of them belong to the connection as it stands on return: a control packet behind them, or the end of the stream, is
        left to the next call, which `pending` then asks for.

        Raises:
            ProtocolError: the stream can't be MQTT, or holds what we never agreed to; close the connection. Messages before that
                place are returned first.
        """
        if (readable or len(self._buffer) < self._need) and self.want_read:
            self._fill()
        if self.blocked and limit <= 0:
            if not self._ended:
                return []
            self._buffer.clear()  # nobody can acknowledge these any more; the broker sends them again
            self._need, self.blocked = 2, False
        messages: list[Message] = []
        if len(self._buffer) >= self._need:
            try:
                self._split(limit, messages)
            except ProtocolError:
                if not messages:
                    raise
        if self._ended and not messages and not self.closed and len(self._buffer) < self._need:
            self._on_control()  # paho reads the end of the stream
        return messages

    # -- inside ------------------------------------------------------------------------------------------------
    def _fill(self) -> None:
        if self.closed or self._ended:
            return
        try:
            data = self._sock.recv(RECEIVE_BYTES)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except OSError as error:
            self._end(error)
            return
        if data:
            self._buffer += data
            self.heard = True
            if not self.greeting:
                self.greeting = data[:GREETING_BYTES]
        else:
            self._end()

    def _end(self, error: OSError | None = None) -> None:
        if isinstance(error, ssl.SSLError):
            self.failed_tls, self.ending = True, tls_cause(error)
        elif error is not None and not self.failed_tls:
            self.ending = f"the connection broke ({error.strerror or error})"
        self._ended = True
        self._output.clear()

    def _split(self, limit: int, messages: list[Message]) -> None:
        """Move whole packets off the buffer: control packets, then messages up to `limit` or to the next control packet.

        Raises ProtocolError, with the packets before the wrong one moved.
        """
        data = bytes(self._buffer)
        size = len(data)
        position = taken = 0
        self.blocked = False
        self._need = 2
        take, properties = messages.append, self._properties
        try:
            while True:
                # Fixed header: one byte of type and flags, then one to four bytes of length.
                body = position + 2
                if size < body:
                    break
                length = data[position + 1]
                if length & 0x80:
                    length &= 0x7F
                    shift = 7
                    while shift <= 21 and body < size:
                        byte = data[body]
                        body += 1
                        length |= (byte & 0x7F) << shift
                        shift += 7
                        if byte < 0x80:
                            break
                    else:
                        if shift > 21:
                            raise ProtocolError("a packet's length has more than four bytes")
                        self._need = body - position + 1
                        break
                end = body + length
                if end > size:
                    self._need = end - position
                    break
                first = data[position]
                if first & 0xF0 != PUBLISH:
                    if first == PUBREL and length >= 2:
                        self.send(b"p\x02" + data[body : body + 2])  # PUBCOMP
                        position = end
                        continue
                    if taken:
                        break
                    self.pings_answered += first == PINGRESP
                    self._control += data[position:end]
                    position = end
                    self._on_control()
                    if self.closed:
                        break
                    continue
                if taken >= limit:
                    self.blocked = True
                    self._need = end - position
                    break
                take(_publish(data, first, body, end, properties))
                taken += 1
                position = end
        finally:
            del self._buffer[:position]


def _publish(data: bytes, first: int, body: int, end: int, properties: bool) -> Message:
    """The PUBLISH packet whose variable header and payload are data[body:end]. Raises ProtocolError.

    MQTT 5 properties are skipped whole: we announce no topic aliases, and no other property changes what is stored. QoS 2 is more
    than we subscribe to; brokers send it all the same (Aedes 1.2), or have such a subscription from an earlier user of the client id.
    """
    try:
        topic_end = body + 2 + (data[body] << 8 | data[body + 1])
        topic = data[body + 2 : topic_end]
        position = topic_end
        packet_id = 0
        qos = first & 0x06
        if qos:
            if qos == 0x06:
                raise ProtocolError("the broker sent a PUBLISH with QoS 3")
            packet_id = data[position] << 8 | data[position + 1]
            position += 2
            if not packet_id:
                raise ProtocolError("the broker sent a PUBLISH with packet id 0")
        if properties:
            length = data[position]
            position += 1
            if length:
                shift = 7
                while length >> shift & 1:  # further bytes of the length: bit `shift` is the last byte's continuation bit
                    byte = data[position]
                    position += 1
                    length = length & ~(1 << shift) | byte << shift
                    shift += 7
                    if shift > 28:
                        raise ProtocolError("a property length has more than four bytes")
                position += length
    except IndexError as error:
        raise ProtocolError("the broker sent a PUBLISH that ends early") from error
    if position > end:
        raise ProtocolError("the broker sent a PUBLISH that is longer than its packet")
    if topic_end == body + 2:
        raise ProtocolError("the broker sent a PUBLISH without topic; MQTT 5 allows that with a topic alias, and we announced none")
    return first, topic, packet_id, data[position:end]
