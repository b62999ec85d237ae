"""A publisher that survives its broker and never repeats itself: what a broken connection leaves open is unknown, not sent again."""

import threading
import time
from urllib.parse import urlsplit

from paho.mqtt.client import Client, MQTTMessageInfo
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode

from iot_platform_tests.support.brokers.server import PAHO, Protocol

_IN_FLIGHT = 50
_ANSWER_SECONDS = 90.0


class Publisher:
    """Publishes numbered messages with QoS 1 from a thread; `acknowledged` are those that the broker has answered for."""

    def __init__(self, url: str, protocol: Protocol, topic: str, count: int, per_second: float) -> None:
        self.acknowledged: set[bytes] = set()
        self.unknown: set[bytes] = set()
        """Sent, and the connection broke before an answer."""
        self._address = urlsplit(url)
        self._protocol = protocol
        self._topic = topic
        self._count = count
        self._per_second = per_second
        self._open: list[tuple[bytes, MQTTMessageInfo]] = []
        self._room = _IN_FLIGHT  # what the broker takes unanswered
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)
        self.sent = 0
        self.silent = False

    def start(self) -> "Publisher":
        """Begin."""
        self._thread.start()
        return self

    def await_sent(self, number: int) -> None:
        """Until so many were sent, or publishing has ended."""
        while self.sent < number and self._thread.is_alive():
            time.sleep(0.01)

    def finish(self, seconds: float) -> None:
        """Wait for its end. A broker that does not answer for so long is `silent`, and publishing ends."""
        self._thread.join(seconds)
        self.silent = self._thread.is_alive()
        self._thread.join(_ANSWER_SECONDS)
        assert not self._thread.is_alive(), f"the publisher hangs after {self.sent} of {self._count}"
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            client = self._connect()
            begin, first = time.monotonic(), self.sent
            while not self.silent and (self.sent < self._count or self._open):
                self._collect()
                if not client.is_connected():
                    self._give_up()
                    client.loop_stop()
                    client = self._connect()
                    begin, first = time.monotonic(), self.sent
                elif self.sent < self._count and len(self._open) < self._room and self._due(begin, first):
                    payload = b'{"n": %d}' % self.sent
                    self._open.append((payload, client.publish(self._topic, payload, qos=1)))
                    self.sent += 1
                else:
                    time.sleep(0.002)
            self._give_up()
            client.disconnect()
            client.loop_stop()
        except BaseException as error:
            self._failure = error

    def _due(self, begin: float, first: int) -> bool:
        return self.sent - first <= (time.monotonic() - begin) * self._per_second

    def _collect(self) -> None:
        still = []
        for payload, info in self._open:
            if info.rc == MQTTErrorCode.MQTT_ERR_SUCCESS and info.is_published():
                self.acknowledged.add(payload)
            else:
                still.append((payload, info))
        self._open = still

    def _give_up(self) -> None:
        self.unknown |= {payload for payload, _ in self._open}
        self._open = []

    def _connect(self) -> Client:
        deadline = time.monotonic() + _ANSWER_SECONDS
        while True:
            name = f"publisher-{time.monotonic_ns()}"
            client = Client(CallbackAPIVersion.VERSION2, name, protocol=PAHO[self._protocol], reconnect_on_failure=False)
            room: list[int] = []
            client.on_connect = lambda *answer, room=room: room.append(getattr(answer[4], "ReceiveMaximum", _IN_FLIGHT))
            client.max_inflight_messages_set(_IN_FLIGHT)
            client.max_queued_messages_set(_IN_FLIGHT)
            try:
                client.connect(self._address.hostname or "", self._address.port or 1883, keepalive=60)
                client.loop_start()
                until = time.monotonic() + 5
                while not client.is_connected() and time.monotonic() < until:
                    time.sleep(0.01)
                if client.is_connected():
                    self._room = min(_IN_FLIGHT, room[0] if room else _IN_FLIGHT)
                    return client
                client.loop_stop()
            except OSError:
                time.sleep(0.1)
            if time.monotonic() > deadline:
                raise TimeoutError("the publisher gets no connection")
