"""What Mosquitto says of itself in its $SYS topics: read by a client of the exporter's own, with no session, and never the daemon's."""

import threading
import time
import uuid
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from iot_platform.logs import get_logger
from iot_platform.metrics.values import Values
from iot_platform.settings import Settings

log = get_logger(__name__)

TOPICS: Final = {
    "clients/connected": "iot_broker_connected_clients",
    "clients/disconnected": "iot_broker_disconnected_clients",
    "store/messages/count": "iot_broker_stored_messages",
    "store/messages/bytes": "iot_broker_stored_bytes",
    "retained messages/count": "iot_broker_retained_messages",
    "publish/messages/received": "iot_broker_received_messages",
    "publish/messages/sent": "iot_broker_sent_messages",
    "publish/messages/dropped": "iot_broker_dropped_messages",
}
"""Below PREFIX, as Mosquitto 2 has them. It writes each when it first differs from 0: one that is not there is 0."""
HEAP: Final = {"heap/current": "iot_broker_heap_bytes"}
"""Not of every build."""
PREFIX: Final = "$SYS/broker/"
LAST: Final = "version"
"""Always there and asked for last, so that all others have come when it comes: half of the counters would look like a restart."""
QUIET_SECONDS: Final = 30.0
"""These topics are retained, and come at once, or within sys_interval (10 s) of Mosquitto's start; after so long there are none to come."""
ANSWER_SECONDS: Final = 5.0
KEEPALIVE_SECONDS: Final = 30


class BrokerUnavailableError(Exception):
    """The MQTT broker does not answer or refuses the exporter's user; the message names the setting. The next look tries again."""


class BrokerLook:
    """Keeps a connection, and takes what came by it. What a broker does not publish is not on the page, and is said once."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._client: mqtt.Client | None = None
        self._heard: dict[str, float] = {}
        self._cause = "no answer"
        self._settled = threading.Event()
        self._since: float | None = None  # of the subscription; None while there is none
        self._complete = False
        self._told = False

    def look(self, values: Values) -> None:
        """Put what was heard. Waits only for a connection that has just been asked for.

        Raises:
            BrokerUnavailableError: see there. SettingsError: a certificate cannot be read.
        """
        if self._client is None:
            self._client = self._connect()
        if self._since is None and not self._settled.wait(ANSWER_SECONDS):
            raise BrokerUnavailableError(f"{self._cause} (IOT_METRICS_MQTT_URL)")
        since = self._since
        if since is None:
            raise BrokerUnavailableError(f"{self._cause} (IOT_METRICS_MQTT_URL)")
        if self._complete:
            for name, value in (dict.fromkeys(TOPICS.values(), 0.0) | self._heard).items():
                values.put(name, value)
        elif not self._told and self._clock() - since > QUIET_SECONDS:
            self._told = True
            log.warning("the MQTT broker publishes no $SYS topics for us, so it has no metrics", topics=f"{PREFIX}#", cause=self._cause)

    def close(self) -> None:
        """Leave the broker."""
        if self._client is not None:
            self._client.disconnect()
            self._client.loop_stop()
            self._client = None

    def _connect(self) -> mqtt.Client:
        url = urlsplit((self._settings.metrics_mqtt_url or self._settings.mqtt_url).get_secret_value())
        client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=f"iot-metrics-{uuid.uuid4().hex[:12]}", protocol=mqtt.MQTTv311)
        if url.username:
            client.username_pw_set(unquote(url.username), unquote(url.password or ""))
        if url.scheme == "mqtts":
            client.tls_set_context(self._settings.mqtt_tls_context())
        client.on_connect = self._connected
        client.on_connect_fail = self._failed
        client.on_disconnect = self._disconnected
        client.on_subscribe = self._subscribed
        client.on_message = self._received
        client.reconnect_delay_set(1, 15)
        client.connect_timeout = ANSWER_SECONDS
        client.connect_async(url.hostname or "", url.port or (8883 if url.scheme == "mqtts" else 1883), KEEPALIVE_SECONDS)
        client.loop_start()
        return client

    # -- called by the client's thread ---------------------------------------------------------------------------
    def _connected(self, client: mqtt.Client, _data: object, _flags: object, reason: Any, _properties: object) -> None:
        if reason.is_failure:
            self._cause = f"the broker refuses the connection: {reason}"
            self._settled.set()
            return
        client.subscribe([(PREFIX + topic, 0) for topic in (*TOPICS, *HEAP, LAST)])

    def _subscribed(self, _client: mqtt.Client, _data: object, _mid: int, reasons: list[Any], _properties: object) -> None:
        refused = [reason for reason in reasons if reason.is_failure]
        self._cause = f"the broker refuses the subscription: {refused[0]}" if refused else "none came"
        if self._since is None:
            self._since = self._clock()
        self._settled.set()

    def _failed(self, _client: mqtt.Client, _data: object) -> None:
        self._cause = "no connection"
        self._settled.set()

    def _disconnected(self, _client: mqtt.Client, _data: object, _flags: object, reason: Any, _properties: object) -> None:
        if self._since is not None:
            self._cause = f"the connection ended: {reason}"
        self._since = None
        self._complete = False
        self._heard.clear()

    def _received(self, _client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        topic = message.topic.removeprefix(PREFIX)
        if topic == LAST:
            self._complete = True
        name = (TOPICS | HEAP).get(topic)
        try:
            value = float(message.payload)
        except ValueError:
            return
        if name is not None and value >= 0:
            self._heard[name] = value
