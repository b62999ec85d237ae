"""An MQTT broker of a few lines on a real port, for what real ones do seldom or on no demand: each connection follows a script."""

import contextlib
import itertools
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from iot_platform.drills.rig.wire import mqtt_frames
from iot_platform_tests.support.servers.mqtt_packets import CONNECT, PINGREQ, PINGRESP, SUBSCRIBE, body_of, publish_packet

V5, V311 = 5, 4
"""Protocol levels, as in CONNECT."""


class GoneError(Exception):
    """The client has closed the connection."""


@dataclass
class Link:
    """One connection, after its CONNECT was read. `packet` answers pings by itself."""

    sock: socket.socket
    level: int = 0
    client_id: str = ""
    password: str | None = None
    clean: bool = False
    seen: list[tuple[int, bytes]] = field(default_factory=list)
    """Type and body of every packet that came, but CONNECT and PINGREQ."""

    def __post_init__(self) -> None:
        self._packets = self._incoming()

    def _incoming(self) -> Iterator[bytes]:
        buffer = bytearray()
        while True:
            yield from mqtt_frames(buffer)
            buffer += self.read()

    def read(self) -> bytes:
        """Some bytes as they come."""
        try:
            data = self.sock.recv(65536)
        except OSError as error:
            raise GoneError from error
        if not data:
            raise GoneError
        return data

    def _raw(self) -> tuple[int, bytes]:
        packet = next(self._packets, None)
        if packet is None:  # the iterator has ended with the connection
            raise GoneError
        return packet[0] >> 4, body_of(packet)

    def read_connect(self) -> None:
        """Who it is, and which version it speaks. It has no will."""
        kind, body = self._raw()
        assert kind == CONNECT, kind
        self.level, self.clean = body[6], bool(body[7] & 2)
        position = 10 + (1 + body[10] if self.level == V5 else 0)
        texts = []
        while position < len(body):
            size = int.from_bytes(body[position : position + 2], "big")
            position += 2 + size
            texts.append(body[position - size : position].decode())
        self.client_id, self.password = texts[0], texts[-1] if body[7] & 0x40 else None

    def packet(self, *kinds: int) -> tuple[int, bytes]:
        """The next packet of one of these types, of any if none is named."""
        while True:
            kind, body = self._raw()
            if kind == PINGREQ:
                self.send(PINGRESP)
                continue
            self.seen.append((kind, body))
            if not kinds or kind in kinds:
                return kind, body

    def packet_id(self, *kinds: int) -> int:
        """The packet id of the next packet of these types."""
        return int.from_bytes(self.packet(*kinds)[1][:2], "big")

    def send(self, data: bytes) -> None:
        """Write it whole."""
        try:
            self.sock.sendall(data)
        except OSError as error:
            raise GoneError from error

    def connack(self, code: int = 0, *, present: bool = False) -> None:
        """In the client's version."""
        self.send(bytes([0x20, 3, present, code, 0]) if self.level == V5 else bytes([0x20, 2, present, code]))

    def suback(self, packet_id: int, code: int = 1) -> None:
        """For one filter."""
        properties = b"\0" if self.level == V5 else b""
        self.send(bytes([0x90, 3 + len(properties)]) + struct.pack("!H", packet_id) + properties + bytes([code]))

    def publish(self, topic: str, packet_id: int, payload: bytes, *, first: int = 0x32) -> None:
        """`first`: type and flags."""
        self.send(publish_packet(topic, packet_id, payload, first=first, v5=self.level == V5))

    def pubrel(self, packet_id: int) -> None:
        """The broker's second word on a message of QoS 2."""
        self.send(struct.pack("!BBH", 0x62, 2, packet_id))

    def begin(self, *, present: bool = False) -> None:
        """CONNACK, and SUBACK to the SUBSCRIBE that follows."""
        self.connack(present=present)
        self.suback(self.packet_id(SUBSCRIBE))

    def serve(self) -> None:
        """CONNACK, SUBACK, and then nothing but answers to pings, until the client goes."""
        self.begin()
        self.rest()

    def rest(self) -> None:
        """Read until the client goes."""
        with contextlib.suppress(GoneError):
            while True:
                self.packet()


Script = Callable[[Link], None]


def close(_link: Link) -> None:
    """Close without an answer."""


def silent(link: Link) -> None:
    """No answer, ever."""
    link.rest()


def only(level: int, otherwise: Script, then: Script = Link.serve) -> Script:
    """A broker that speaks one version."""
    return lambda link: then(link) if link.level == level else otherwise(link)


def refuse_version(link: Link) -> None:
    """CONNACK of MQTT 3.1.1: unacceptable protocol version."""
    link.send(b"\x20\x02\x00\x01")


class ScriptedBroker:
    """The n-th connection runs the n-th script; all after the last one run that. What a script raises fails the test at `close`."""

    def __init__(self, *scripts: Script) -> None:
        self._scripts = scripts
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=50)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"mqtt://127.0.0.1:{self.port}"
        self.links: list[Link] = []
        self._errors: list[BaseException] = []
        self._threads: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def _accept(self) -> None:
        for number in itertools.count():
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            link = Link(sock)
            script = self._scripts[min(number, len(self._scripts) - 1)]
            thread = threading.Thread(target=self._run, args=(link, script), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _run(self, link: Link, script: Script) -> None:
        try:
            link.read_connect()
            self.links.append(link)
            script(link)
        except GoneError:
            pass
        except BaseException as error:
            self._errors.append(error)
        finally:
            # Not close() alone: what the client sent and nobody read would turn the end into a reset.
            with contextlib.suppress(OSError):
                link.sock.shutdown(socket.SHUT_WR)
            with contextlib.suppress(GoneError):
                while True:
                    link.read()
            link.sock.close()

    def close(self) -> None:
        """End every connection."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for link in self.links:
            with contextlib.suppress(OSError):
                link.sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        if self._errors:
            raise self._errors[0]


@contextlib.contextmanager
def scripted(*scripts: Script) -> Iterator[ScriptedBroker]:
    """A broker, closed at the end."""
    broker = ScriptedBroker(*scripts)
    try:
        yield broker
    finally:
        broker.close()
