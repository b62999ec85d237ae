"""What passed between a broker and our daemon, seen by a proxy in between: the judge of whose fault a lost message is."""

import threading
import time
from dataclasses import dataclass

from iot_platform.drills.rig.proxy import Link
from iot_platform.drills.rig.wire import mqtt_frames
from iot_platform_tests.support.servers.mqtt_packets import CONNECT, PUBACK, PUBLISH, body_of, variable


@dataclass(frozen=True)
class Delivery:
    """A PUBLISH that the broker sent to the daemon."""

    connection: int
    packet_id: int
    dup: bool
    payload: bytes


class Observed:
    """Filters for a proxy. `hold` keeps back, for good, what the daemon sends: PUBACKs, and what it sends behind them."""

    def __init__(self) -> None:
        self.hold = False
        self.held = 0
        self.deliveries: list[Delivery] = []
        self.acknowledged: set[bytes] = set()
        """Payloads of messages whose PUBACK was on its way to the broker."""
        self.last_delivery = time.monotonic()
        self._lock = threading.Lock()

    def __call__(self, link: Link) -> "_Filter":
        return _Filter(self, link.number)

    def delivered(self, delivery: Delivery) -> None:
        """Of the filters."""
        with self._lock:
            self.deliveries.append(delivery)
        self.last_delivery = time.monotonic()

    @property
    def payloads(self) -> set[bytes]:
        """All that was delivered."""
        with self._lock:
            return {delivery.payload for delivery in self.deliveries}


class _Filter:
    def __init__(self, observed: Observed, number: int) -> None:
        self._observed = observed
        self._number = number
        self._up, self._down = bytearray(), bytearray()
        self._properties = True
        self._open: dict[int, bytes] = {}

    async def up(self, chunk: bytes) -> bytes:
        self._up += chunk
        passed = []
        for frame in mqtt_frames(self._up):
            kind = frame[0] >> 4
            if self._observed.hold:
                self._observed.held += kind == PUBACK
                continue
            if kind == CONNECT:
                body = body_of(frame)
                name = int.from_bytes(body[:2])
                self._properties = body[2 + name] >= 5
            elif kind == PUBACK:
                payload = self._open.pop(int.from_bytes(body_of(frame)[:2]), None)
                if payload is not None:
                    self._observed.acknowledged.add(payload)
            passed.append(frame)
        return b"".join(passed)

    async def down(self, chunk: bytes) -> bytes:
        self._down += chunk
        for frame in mqtt_frames(self._down):
            if frame[0] >> 4 == PUBLISH:
                self._published(frame)
        return chunk

    def _published(self, frame: bytes) -> None:
        body = body_of(frame)
        position = 2 + int.from_bytes(body[:2])
        packet_id = 0
        if frame[0] & 6:
            packet_id = int.from_bytes(body[position : position + 2])
            position += 2
        if self._properties:
            length, size = variable(body, position)
            position += size + length
        payload = body[position:]
        self._open[packet_id] = payload
        self._observed.delivered(Delivery(self._number, packet_id, bool(frame[0] & 8), payload))
