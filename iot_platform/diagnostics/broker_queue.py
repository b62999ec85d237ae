"""What a client can find out about any broker's promises: what it grants at CONNECT, what it says it dropped, and how many messages it
keeps for a client that is away, which only trying tells."""

import contextlib
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from ingest_daemon.protocol import Protocol
from iot_platform.settings import Settings
from iot_platform.simulator.connection import Broker

PUBLISHED: Final = 1_200
"""Messages of a probe: more than 1,000, the default of Mosquitto, EMQX, VerneMQ and HiveMQ, and the twenty that they have in flight."""
TOPIC: Final = "iot-doctor/queue/{}"
DROPPED: Final = "$SYS/broker/publish/messages/dropped"
ANSWER_SECONDS: Final = 5.0
ALL_SECONDS: Final = 10.0
QUIET_SECONDS: Final = 1.5
EXPIRY_SECONDS: Final = 120
_BYTES: Final = b"iot doctor"


class QueueError(Exception):
    """The broker could not be asked, and the message says why."""


@dataclass
class BrokerAnswer:
    """What CONNACK and $SYS say; None: nothing."""

    session_expiry_seconds: int | None = None
    most_bytes: int | None = None
    dropped: int | None = None


def ask_broker(settings: Settings, expiry_seconds: int, version: str) -> BrokerAnswer:
    """Connect once under a name of our own, asking for a session as long as the daemon's, and leave without one.

    Raises:
        QueueError: see there.
        SettingsError: the broker's password can not be read.
    """
    answer = BrokerAnswer()
    link = _Link(settings, version, _name(), expiry_seconds)
    try:
        properties = link.connect()
        if version == Protocol.V5:
            answer.session_expiry_seconds = int(getattr(properties, "SessionExpiryInterval", expiry_seconds))
            answer.most_bytes = getattr(properties, "MaximumPacketSize", None)
        if link.subscribe(DROPPED):
            link.until(lambda: bool(link.received), QUIET_SECONDS)
            if link.received and link.received[0].isdigit():
                answer.dropped = int(link.received[0])
    finally:
        link.forget()
    return answer


def read_retained(settings: Settings, version: str, topic_filter: str) -> dict[str, str]:
    """What the broker sends of a filter at once: topic → text. Empty where it grants nothing.

    Raises:
        QueueError: see there.
        SettingsError: the broker's password can not be read.
    """
    link = _Link(settings, version, _name())
    try:
        link.connect()
        link.subscribe(topic_filter)
        _collect(link)
    finally:
        link.leave()
    return dict(sorted(link.topics.items()))


def kept_for_the_absent(settings: Settings, version: str) -> int:
    """How many of PUBLISHED messages a session got that was away while they were published. They go to a topic of their own.

    Raises:
        QueueError: see there.
        SettingsError: the broker's password can not be read.
    """
    from paho.mqtt.client import topic_matches_sub

    from ingest_daemon.topic_filters import parse

    topic = TOPIC.format(uuid.uuid4().hex)
    if taken := [one for one in parse(settings.mqtt_topic_filter) if topic_matches_sub(one, topic)]:
        raise QueueError(f"a probe would be data, because the daemon subscribes to {taken[0]}")
    name = _name()
    absent = _Link(settings, version, name, EXPIRY_SECONDS, clean=False)
    try:
        absent.connect()
        if not absent.subscribe(topic):
            raise QueueError(f"our user may not subscribe to {topic} (right to read iot-doctor/#)")
        absent.leave()
        _publish(settings, version, topic)
        absent = _Link(settings, version, name, EXPIRY_SECONDS, clean=False)
        absent.connect()
        _collect(absent)
    finally:
        absent.forget()
    if not absent.received:
        raise QueueError(f"nothing published to {topic} came back (rights to read and write iot-doctor/#)")
    return len(absent.received)


def _name() -> str:
    return f"iot-doctor-{uuid.uuid4().hex[:12]}"


def _publish(settings: Settings, version: str, topic: str) -> None:
    link = _Link(settings, version, _name())
    try:
        link.connect()
        link.publish(topic, PUBLISHED)
    finally:
        link.leave()


def _collect(link: "_Link") -> None:
    """Until all are there, or none comes any more."""
    deadline = time.monotonic() + ALL_SECONDS
    while len(link.received) < PUBLISHED and time.monotonic() < deadline:
        before = len(link.received)
        link.until(lambda before=before: len(link.received) > before, QUIET_SECONDS)  # type: ignore[misc]
        if len(link.received) == before:
            return


class _Link:
    """One connection of paho's, driven by hand. Without `clean` it takes up the session that the broker has under its name."""

    def __init__(self, settings: Settings, version: str, name: str, expiry_seconds: int = 0, *, clean: bool = True) -> None:
        """Raises SettingsError."""
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

        self.received: list[bytes] = []
        self.topics: dict[str, str] = {}
        """The last text of each topic."""
        self._settings, self._version, self._name = settings, version, name
        self._is_v5, self._expiry_seconds, self._clean = version == Protocol.V5, expiry_seconds, clean
        self._answers: dict[str, Any] = {}
        self._refused: set[str] = set()
        self._unanswered: set[int] = set()
        self._broker = broker = Broker.from_settings(settings)
        protocol = MQTTProtocolVersion.MQTTv5 if self._is_v5 else MQTTProtocolVersion.MQTTv311
        session = None if self._is_v5 else clean
        self._client = Client(CallbackAPIVersion.VERSION2, name, clean_session=session, protocol=protocol, reconnect_on_failure=False)
        self._client.on_connect = self._connected
        self._client.on_subscribe = lambda _client, _data, _number, reasons, _properties: self._answers.update(subscribed=reasons)
        self._client.on_message = self._arrived
        self._client.on_publish = self._published
        if broker.username is not None:
            self._client.username_pw_set(broker.username, broker.password)
        if broker.tls is not None:
            self._client.tls_set_context(broker.tls)
        self._client.connect_timeout = ANSWER_SECONDS
        self._client.max_inflight_messages_set(100)

    def _connected(self, _client: Any, _data: Any, _flags: Any, reason: Any, properties: Any) -> None:
        self._answers |= {"connected": reason, "properties": properties}

    def _arrived(self, _client: Any, _data: Any, message: Any) -> None:
        self.received.append(bytes(message.payload))
        self.topics[message.topic] = message.payload.decode("utf-8", "replace")

    def _published(self, _client: Any, _data: Any, number: int, reason: Any, _properties: Any) -> None:
        self._unanswered.discard(number)
        if reason.is_failure:
            self._refused.add(str(reason))

    def connect(self) -> Any:
        """CONNACK's properties. Raises QueueError."""
        more: dict[str, Any] = {"clean_start": self._clean, "properties": self._expiry("CONNECT")} if self._is_v5 else {}
        try:
            self._client.connect(self._broker.host, self._broker.port, **more)
        except (OSError, ValueError) as error:
            raise QueueError(f"no connection to the broker: {error} (IOT_MQTT_URL)") from error
        self.until(lambda: "connected" in self._answers, ANSWER_SECONDS)
        reason = self._answers.get("connected")
        if reason is None or reason.is_failure:
            raise QueueError(f"the broker refuses a connection under the name {self._name}: {reason or 'no answer'}")
        return self._answers["properties"]

    def _expiry(self, packet: str) -> Any:
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties

        properties = Properties(getattr(PacketTypes, packet))  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = self._expiry_seconds if packet == "CONNECT" else 0
        return properties

    def subscribe(self, topic: str) -> bool:
        """Whether the broker grants it, at QoS 1."""
        self._client.subscribe(topic, 1)
        self.until(lambda: "subscribed" in self._answers, ANSWER_SECONDS)
        reasons = self._answers.get("subscribed", [])
        return bool(reasons) and not reasons[0].is_failure

    def publish(self, topic: str, count: int) -> None:
        """At QoS 1, each acknowledged. Raises QueueError."""
        self._unanswered = {self._client.publish(topic, _BYTES, qos=1).mid for _ in range(count)}
        self.until(lambda: not self._unanswered, ALL_SECONDS)
        if self._refused:
            raise QueueError(f"the broker refuses what is published to {topic}: {', '.join(self._refused)} (right to write iot-doctor/#)")
        if self._unanswered:
            raise QueueError(f"{len(self._unanswered)} of {count} messages were not acknowledged within {ALL_SECONDS:.0f} s")

    def until(self, done: Callable[[], bool], seconds: float) -> None:
        """Serve the connection until done, lost or late."""
        deadline = time.monotonic() + seconds
        while not done() and time.monotonic() < deadline:
            if self._client.loop(0.1):
                return

    def leave(self) -> None:
        """The broker keeps the session as long as it was asked to."""
        self._client.disconnect()

    def forget(self) -> None:
        """The broker keeps nothing, as far as it still answers."""
        if self._is_v5 and self._client.is_connected():
            self._client.disconnect(properties=self._expiry("DISCONNECT"))
        elif not self._is_v5 and not self._clean:
            self._client.disconnect()
            last = _Link(self._settings, self._version, self._name)
            with contextlib.suppress(QueueError):
                last.connect()
            last.leave()
        else:
            self._client.disconnect()
