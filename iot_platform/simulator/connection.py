"""One MQTT 5 connection of the simulator: publishes with QoS 1 inside the broker's window, and knows what was acknowledged."""

import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from iot_platform.settings import Settings
from iot_platform.simulator.message import Message

MAX_WINDOW: Final = 500  # unacknowledged publishes per connection, if the broker allows that many
KEEPALIVE_SECONDS: Final = 30
CONNECT_TIMEOUT_SECONDS: Final = 5.0
MISC_SECONDS: Final = 0.5  # how often keepalive is looked after
MAX_BACKOFF_SECONDS: Final = 5.0
REFUSED: Final = 0x80  # MQTT 5 reason codes from here on are failures


class BrokerError(Exception):
    """The broker cannot be reached or refuses us; the message names the setting. Retry once that is put right."""


@dataclass(slots=True)
class Delivery:
    """What became of one publish: `acked_us` None means maybe stored; `sends` > 1 means possibly stored more than once."""

    message: Message
    published_us: int
    acked_us: int | None = None
    sends: int = 1
    refused: str | None = None


@dataclass(frozen=True)
class Broker:
    """Where and how to connect."""

    host: str
    port: int
    username: str | None
    password: str | None = field(repr=False)
    tls: ssl.SSLContext | None

    @classmethod
    def from_settings(cls, settings: Settings) -> "Broker":
        """Broker of IOT_MQTT_URL and IOT_MQTT_TLS_*. Raises SettingsError."""
        parts = urlsplit(settings.mqtt_url.get_secret_value())
        tls = settings.mqtt_tls_context() if parts.scheme == "mqtts" else None
        port = parts.port or (8883 if tls else 1883)
        return cls(parts.hostname or "", port, settings.mqtt_user, settings.mqtt_password(), tls)

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class Connection:
    """A paho client driven from the caller's thread: call `turn` often; it never blocks longer than a connection attempt.

    After a lost connection it reconnects with back-off, and paho sends everything unacknowledged again.
    """

    def __init__(self, broker: Broker, client_id: str, on_settled: Callable[[Delivery], None]) -> None:
        self._broker = broker
        self._on_settled = on_settled
        self._window = MAX_WINDOW
        self._connected = False
        self._closing = False
        self._failure: str | None = None
        self._retry_at = 0.0
        self._misc_at = 0.0
        self._backoff = 0.1
        self.in_flight: dict[int, Delivery] = {}
        self.reconnects = 0
        client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=mqtt.MQTTv5)
        client.max_inflight_messages_set(0)  # the window below is ours: paho's would be fixed before CONNACK tells the broker's
        client.connect_timeout = CONNECT_TIMEOUT_SECONDS
        if broker.username is not None:
            client.username_pw_set(broker.username, broker.password)
        if broker.tls is not None:
            client.tls_set_context(broker.tls)
        client.on_connect, client.on_disconnect, client.on_publish = self._connect, self._disconnect, self._puback
        self.client = client

    def open(self, deadline_seconds: float = 10.0) -> None:
        """Connect and wait for the broker's yes.

        Raises:
            BrokerError: unreachable, or it refused us.
        """
        try:
            self.client.connect(self._broker.host, self._broker.port, keepalive=KEEPALIVE_SECONDS)
        except (OSError, ValueError) as error:
            raise BrokerError(f"cannot reach the MQTT broker at {self._broker} (IOT_MQTT_URL): {error}") from error
        give_up = time.monotonic() + deadline_seconds
        while not self._connected:
            if self._failure or time.monotonic() > give_up:
                raise BrokerError(f"the MQTT broker at {self._broker} (IOT_MQTT_URL) did not accept us: {self._failure or 'no answer'}")
            self.client.loop(timeout=0.1)

    @property
    def ready(self) -> bool:
        """Whether a publish would go out now: connected, and the window has room."""
        return self._connected and len(self.in_flight) < self._window

    def publish(self, message: Message) -> None:
        """Send one message; only while `ready`."""
        info = self.client.publish(message.topic, message.payload, qos=1, retain=message.retain)
        while info.rc == mqtt.MQTT_ERR_QUEUE_SIZE:  # that packet id still waits for its PUBACK: the next one
            info = self.client.publish(message.topic, message.payload, qos=1, retain=message.retain)
        self.in_flight[info.mid] = Delivery(message, time.time_ns() // 1000)

    def turn(self, readable: bool) -> None:
        """Read what has arrived, write what waits, keep alive, reconnect when it is time."""
        if self.client.socket() is None:
            self._reconnect()
            return
        if readable or self._broker.tls is not None:  # TLS may hold bytes that select() cannot see
            self.client.loop_read()
        if self.client.want_write():
            self.client.loop_write()
        now = time.monotonic()
        if now >= self._misc_at:
            self._misc_at = now + MISC_SECONDS
            self.client.loop_misc()

    def close(self) -> None:
        """Say goodbye to the broker."""
        self._closing = True
        self.client.disconnect()

    def _reconnect(self) -> None:
        now = time.monotonic()
        if now < self._retry_at:
            return
        self._retry_at = now + self._backoff
        self._backoff = min(self._backoff * 2, MAX_BACKOFF_SECONDS)
        try:
            self.client.reconnect()
        except OSError as error:
            self._failure = str(error)

    def _connect(
        self, _client: mqtt.Client, _user: Any, _flags: mqtt.ConnectFlags, reason: ReasonCode, properties: Properties | None
    ) -> None:
        if reason.is_failure:
            self._failure = str(reason)
            return
        self._window = min(MAX_WINDOW, getattr(properties, "ReceiveMaximum", MAX_WINDOW))
        self._connected, self._failure, self._backoff = True, None, 0.1
        for delivery in self.in_flight.values():
            delivery.sends += 1  # paho repeats them after this callback

    def _disconnect(self, *_: Any) -> None:
        self.reconnects += self._connected and not self._closing
        self._connected = False

    def _puback(self, _client: mqtt.Client, _user: Any, mid: int, reason: ReasonCode, _properties: Properties | None) -> None:
        delivery = self.in_flight.pop(mid, None)
        if delivery is None:
            return
        if reason.value >= REFUSED:
            delivery.refused = str(reason)
        else:
            delivery.acked_us = time.time_ns() // 1000
        self._on_settled(delivery)
