"""How a broker behaves towards a subscriber, found by asking it: what the daemon must be prepared for, and what the documentation says."""

import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from iot_platform.local.ports import LOOPBACK
from iot_platform_tests.support.brokers.run import RunningBroker
from iot_platform_tests.support.brokers.server import PAHO, Protocol

MESSAGES: Final = 300
_BEFORE: Final = 20
_FEW: Final = 100
_ROOM: Final = 2000  # receive maximum
_WEEK_SECONDS: Final = 7 * 86400
_ANSWER_SECONDS: Final = 15.0
_SILENT_SECONDS: Final = 1.5
_REDELIVERY_SECONDS: Final = 40


@dataclass(frozen=True)
class Habits:
    """What is seen of a broker by a subscriber with QoS 1 and a session that is kept."""

    small_window: bool
    """It keeps few messages (1 to 100) unacknowledged at once, of 300 with room for 2,000; otherwise all."""
    dup: bool
    """What comes again after a broken connection has DUP."""
    same_ids: bool
    """... and the packet identifier that it had."""
    comes_after_seconds: int
    """... so long after the reconnect, roughly: 0, 5 or 30."""
    absence: bool
    """The session outlives a broken connection, with its messages."""
    restart: bool
    """... a stop and start of the broker."""
    kill: bool
    """... kill -9 of the broker a second later."""
    retained_again: bool
    """A retained message comes again with each SUBSCRIBE, also when MQTT 5 asks to have it only with a new subscription."""
    dots_kept: bool
    """A topic with a dot arrives as it was published."""


class ClosedError(Exception):
    """The broker closed the connection. Retry."""


class Subscriber:
    """A client that acknowledges nothing by itself."""

    def __init__(self, port: int, protocol: Protocol, client_id: str, topic_filter: str) -> None:
        self.messages: list[MQTTMessage] = []
        self.session_present = False
        self._answers: list[str] = []
        self._port, self._protocol, self._filter = port, protocol, topic_filter
        clean = None if protocol == "5" else False
        self.client = Client(CallbackAPIVersion.VERSION2, client_id, protocol=PAHO[protocol], manual_ack=True, clean_session=clean)
        self.client.on_message = lambda _client, _data, message: self.messages.append(message)
        self.client.on_connect = self._connected
        self.client.on_subscribe = self._subscribed

    def connect(self) -> "Subscriber":
        """Connect to a session that may exist, and subscribe."""
        if self._protocol == "5":
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = _WEEK_SECONDS
            properties.ReceiveMaximum = _ROOM
            self.client.connect(LOOPBACK, self._port, clean_start=False, properties=properties)
        else:
            self.client.connect(LOOPBACK, self._port)
        self._await("CONNACK")
        if self._protocol == "5":
            options = SubscribeOptions(qos=1, retainHandling=SubscribeOptions.RETAIN_SEND_IF_NEW_SUB)
            self.client.subscribe(self._filter, options=options)
        else:
            self.client.subscribe(self._filter, qos=1)
        self._await("SUBACK")
        return self

    def read(self, silent: float = _SILENT_SECONDS, at_most: float = _ANSWER_SECONDS) -> list[MQTTMessage]:
        """All that comes until it is silent for so long."""
        begin = last = time.monotonic()
        count = len(self.messages)
        while time.monotonic() - last < silent and time.monotonic() - begin < at_most:
            self.client.loop(0.05)
            if len(self.messages) != count:
                count, last = len(self.messages), time.monotonic()
        return self.messages

    def acknowledge(self) -> None:
        """All that has come and comes, until it is silent."""
        done, last = 0, time.monotonic()
        while time.monotonic() - last < _SILENT_SECONDS:
            for message in self.messages[done:]:
                self.client.ack(message.mid, message.qos)
                done, last = done + 1, time.monotonic()
            self.client.loop(0.05)

    def cut(self) -> None:
        """Break the connection without a word."""
        opened = self.client.socket()
        with suppress(OSError):
            if isinstance(opened, socket.socket):
                opened.shutdown(socket.SHUT_RDWR)
        deadline = time.monotonic() + _ANSWER_SECONDS
        while self.client.socket() is not None and time.monotonic() < deadline:
            self.client.loop(0.05)

    def _connected(self, _client: Client, _data: Any, flags: Any, _reason: Any, _properties: Any) -> None:
        self.session_present = flags.session_present
        self._answers.append("CONNACK")

    def _subscribed(self, _client: Client, _data: Any, _id: int, reasons: list[Any], _properties: Any) -> None:
        assert not reasons[0].is_failure, f"SUBSCRIBE refused: {reasons[0]}"
        self._answers.append("SUBACK")

    def _await(self, answer: str) -> None:
        deadline = time.monotonic() + _ANSWER_SECONDS
        while answer not in self._answers:
            if self.client.loop(0.05) != 0 and answer not in self._answers:
                raise ClosedError(f"closed before {answer}")
            assert time.monotonic() < deadline, f"no {answer}"


class Probe:
    """Questions to one running broker in one protocol; each uses a client id and a topic of its own."""

    def __init__(self, broker: RunningBroker, protocol: Protocol) -> None:
        self._broker, self._protocol = broker, protocol
        self._number = time.monotonic_ns()

    def habits(self) -> Habits:
        """All of them. Restarts and kills the broker."""
        small_window, dup, same_ids, after, absence = self._redelivery()
        return Habits(
            small_window=small_window,
            dup=dup,
            same_ids=same_ids,
            comes_after_seconds=after,
            absence=absence,
            restart=self._outlives(self._broker.stop),
            kill=self._outlives(self._broker.kill),
            retained_again=self._retained_again(),
            dots_kept=self._dots_kept(),
        )

    def _redelivery(self) -> tuple[bool, bool, bool, int, bool]:
        make, topic = self._subscribers("d/{}")
        first = make()
        self._publish(topic, _BEFORE)
        first.acknowledge()  # so that packet identifiers that begin anew show
        first.messages.clear()
        self._publish(topic, MESSAGES)
        before = {message.payload: message.mid for message in first.read()}
        small = len(before) <= _FEW
        assert small or len(before) == MESSAGES, f"{len(before)} in flight"
        first.cut()
        begin = time.monotonic()
        again = make()
        while again.session_present and not again.messages and time.monotonic() - begin < _REDELIVERY_SECONDS:
            again.client.loop(0.1)
        after = time.monotonic() - begin
        came = [message for message in again.read() if message.payload in before]
        if not came:  # amqtt says that the session is present, and has nothing of it
            return small, False, False, 0, False
        dup = all(message.dup for message in came)
        same = all(before[message.payload] == message.mid for message in came)
        again.acknowledge()
        again.client.disconnect()
        return small, dup, same, 30 if after > 15 else 5 if after > 3 else 0, True

    def _outlives(self, end: Callable[[], None]) -> bool:
        make, _ = self._subscribers("s/{}")
        make().cut()
        time.sleep(1)  # as the field says: a second later
        end()
        self._broker.start()
        again = make()
        again.client.disconnect()
        return again.session_present

    def _retained_again(self) -> bool:
        make, topic = self._subscribers("r/{}/#")
        self._publish(topic.replace("#", "x"), 1, retain=True)
        first = make()
        first.acknowledge()
        first.cut()
        again = make()
        found = again.read()
        again.client.disconnect()
        return bool(found)

    def _dots_kept(self) -> bool:
        make, topic = self._subscribers("t/{}/#")
        subscriber = make()
        name = topic.replace("#", "a.b")
        self._publish(name, 1)
        subscriber.acknowledge()
        subscriber.client.disconnect()
        return {message.topic for message in subscriber.messages} == {name}

    def _subscribers(self, pattern: str) -> tuple[Callable[[], Subscriber], str]:
        self._number += 1
        topic, client_id = pattern.format(self._number), f"probe-{self._number}"
        return lambda: self._subscriber(client_id, topic), topic

    def _subscriber(self, client_id: str, topic: str) -> Subscriber:
        """Connected; a broker that has just been started may close the first connections."""
        deadline = time.monotonic() + _ANSWER_SECONDS
        while True:
            try:
                return Subscriber(self._broker.server.port, self._protocol, client_id, topic).connect()
            except ClosedError:
                if time.monotonic() > deadline:
                    raise

    def _publish(self, topic: str, count: int, *, retain: bool = False) -> None:
        client = Client(CallbackAPIVersion.VERSION2, f"publisher-{self._number}", protocol=PAHO[self._protocol])
        client.connect(LOOPBACK, self._broker.server.port)
        client.loop_start()
        last = [client.publish(topic, b"%d" % number, qos=1, retain=retain) for number in range(count)]
        for info in last:
            info.wait_for_publish(_ANSWER_SECONDS)
            assert info.is_published(), "the broker does not answer the publisher"
        client.disconnect()
        client.loop_stop()
