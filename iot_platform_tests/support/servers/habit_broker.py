"""An MQTT 5 broker for one session that sends again as its habit is: with DUP or without, under old or new packet ids, in any order."""

import contextlib
import random
import socket
import struct
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Self

from iot_platform.drills.rig.wire import mqtt_frames
from iot_platform_tests.support.servers.mqtt_packets import (
    CONNECT,
    DISCONNECT,
    PINGREQ,
    PINGRESP,
    PUBACK,
    SUBSCRIBE,
    UNSUBSCRIBE,
    body_of,
    publish_packet,
)


@dataclass(frozen=True)
class Habit:
    """What a broker does when it sends again."""

    dup: bool = True
    new_ids: bool = False  # counted from 1 on each connection
    order: str = "kept"  # or "shuffled", or "late": only when the test says so
    false_dup: bool = False  # flags what waited while nobody was connected, too
    window: int = 100


HABITS: Final = {
    "mosquitto": Habit(),
    "rabbitmq": Habit(new_ids=True, false_dup=True, window=10),
    "artemis": Habit(dup=False, new_ids=True, order="shuffled", window=1000),
    "rumqttd": Habit(dup=False, new_ids=True),
    "aedes": Habit(dup=False, window=5000),
    "mochi": Habit(order="shuffled"),
    "nats": Habit(order="late"),
}
"""By a broker that has it."""


@dataclass
class Waiting:
    """A message that the client has not acknowledged."""

    topic: str
    payload: bytes
    flagged: bool = False


class HabitBroker:
    """Listens on a free port of 127.0.0.1. What is published is held until it is acknowledged, also while nobody is connected."""

    def __init__(self, habit: Habit) -> None:
        self.habit = habit
        self.redelivered = 0
        self.swallow = False  # PUBACKs are lost on the wire
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"mqtt://127.0.0.1:{self._server.getsockname()[1]}"
        self._lock = threading.RLock()
        self._queue: deque[Waiting] = deque()
        self._in_flight: dict[int, Waiting] = {}
        self._owed: list[tuple[int, Waiting]] = []
        self._last_id = 0
        self._client: socket.socket | None = None
        self._seen = False
        self._chance = random.Random(1)
        threading.Thread(target=self._accept, daemon=True).start()

    # -- the test's side ---------------------------------------------------------------------------------------
    def publish(self, topic: str, payload: bytes) -> None:
        """Take a message from a device."""
        with self._lock:
            self._queue.append(Waiting(topic, payload, self.habit.false_dup and self._client is None))
            self._pump()

    @property
    def empty(self) -> bool:
        """Whether everything is acknowledged."""
        return not self._queue and not self._in_flight

    @property
    def only_owed(self) -> bool:
        """Whether nothing is on its way but what a late broker owes; that may fill the window, and then nothing new comes before it."""
        with self._lock:
            return self._client is not None and len(self._in_flight) == len(self._owed)

    @property
    def waiting(self) -> int:
        """Messages that were not sent yet."""
        return len(self._queue)

    @property
    def connected(self) -> bool:
        """Whether the session is in use."""
        return self._client is not None

    def cut(self) -> None:
        """Break the connection."""
        with self._lock:
            client, self._client = self._client, None
            if client is not None:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                with contextlib.suppress(OSError):
                    client.shutdown(socket.SHUT_RDWR)
                client.close()

    def resend(self) -> None:
        """Send what a late broker owes; with nothing owed, all that is in flight, on the connection that it came on."""
        with self._lock:
            owed, self._owed = self._owed or list(self._in_flight.items()), []
            for number, waiting in owed:
                if number in self._in_flight:
                    self.redelivered += 1
                    self._send(number, waiting, dup=self.habit.dup)

    def close(self) -> None:
        """Stop listening."""
        self._server.close()
        self.cut()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- the wire ----------------------------------------------------------------------------------------------
    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            for kind, body in _packets(client):
                with self._lock:
                    if kind == CONNECT:
                        self.cut()
                        client.sendall(bytes((0x20, 3, self._seen, 0, 0)))
                        self._seen, self._client = True, client
                        self._resume()
                    elif client is not self._client:
                        return
                    elif kind == SUBSCRIBE:
                        client.sendall(bytes((0x90, 4)) + body[:2] + bytes((0, 1)))
                        self._pump()
                    elif kind == UNSUBSCRIBE:
                        client.sendall(bytes((0xB0, 4)) + body[:2] + bytes((0, 0)))
                    elif kind == PINGREQ:
                        client.sendall(PINGRESP)
                    elif kind == PUBACK and not self.swallow:
                        self._in_flight.pop(int.from_bytes(body[:2], "big"), None)
                        self._pump()
                    elif kind == DISCONNECT:
                        break
        with self._lock:
            if self._client is client:
                self._client = None
        client.close()

    def _resume(self) -> None:
        habit = self.habit
        again = list(self._in_flight.values())
        if habit.new_ids:
            self._last_id = 0
            self._in_flight = {}
            for waiting in again:
                self._in_flight[self._next_id()] = waiting
        owed = list(self._in_flight.items())
        if habit.order == "shuffled":
            self._chance.shuffle(owed)
        self._owed = owed
        if habit.order != "late" and owed:
            self.resend()

    def _next_id(self) -> int:
        while True:
            self._last_id = self._last_id % 65535 + 1
            if self._last_id not in self._in_flight:
                return self._last_id

    def _pump(self) -> None:
        while self._client is not None and self._queue and len(self._in_flight) < self.habit.window:
            waiting = self._queue.popleft()
            number = self._next_id()
            self._in_flight[number] = waiting
            self._send(number, waiting, dup=waiting.flagged)

    def _send(self, number: int, waiting: Waiting, *, dup: bool) -> None:
        if self._client is not None:
            with contextlib.suppress(OSError):
                self._client.sendall(publish_packet(waiting.topic, number, waiting.payload, first=0x32 | dup << 3, v5=True))


def _packets(client: socket.socket) -> Iterator[tuple[int, bytes]]:
    """Type and body of each packet, until the connection ends."""
    buffer = bytearray()
    while data := client.recv(65536):
        buffer += data
        for packet in mqtt_frames(buffer):
            yield packet[0] >> 4, body_of(packet)
