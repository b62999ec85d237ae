"""paho's client as the daemon uses it: for one kind of attempt, with a socket of ours below it."""

from collections.abc import Callable
from typing import Any

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from ingest_daemon.broker_access import BrokerAccess
from ingest_daemon.protocol import Attempt, Protocol
from ingest_daemon.settings import Settings
from ingest_daemon.transport import FrameSocket


class MqttClient(Client):
    """`_create_socket` and `_last_mid` are the private names we rely on (contract test: test_ingest_transport)."""

    wrap: Callable[[Any], FrameSocket]
    """Puts our socket on top of the connected one."""

    def _create_socket(self) -> FrameSocket:
        return self.wrap(super()._create_socket())

    def number_next(self, packet_id: int) -> None:
        """The packet identifier that the next SUBSCRIBE or UNSUBSCRIBE gets."""
        self._last_mid = packet_id - 1


def build(settings: Settings, attempt: Attempt, shown: BrokerAccess) -> MqttClient:
    """A client, not connected yet, that shows `shown` and keeps its session; for a probe one whose session ends with the connection.

    MQTT 3.1.1 has neither a session expiry (the broker decides) nor a receive maximum (reading pauses instead).
    """
    v5 = attempt.protocol is Protocol.V5
    client = MqttClient(
        CallbackAPIVersion.VERSION2,
        client_id=f"{settings.ingest_client_id}-probe" if attempt.probe else settings.ingest_client_id,
        clean_session=None if v5 else attempt.probe,
        protocol=MQTTProtocolVersion.MQTTv5 if v5 else MQTTProtocolVersion.MQTTv311,
        manual_ack=True,
        reconnect_on_failure=False,
    )
    if settings.mqtt_user is not None:
        client.username_pw_set(settings.mqtt_user, shown.password)
    if shown.tls is not None:
        client.tls_set_context(shown.tls)
    place = (*settings.mqtt_address, settings.ingest_keepalive_seconds)
    if not v5:
        client.connect_async(*place)
        return client
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.SessionExpiryInterval = 0 if attempt.probe else settings.ingest_session_expiry_seconds
    properties.ReceiveMaximum = settings.ingest_in_flight_window
    # paho's default clean_start wipes the broker's session at each start of the process.
    client.connect_async(*place, clean_start=attempt.probe, properties=properties)
    return client
