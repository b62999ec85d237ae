"""The MQTT session: a paho client that connects persistently, subscribes at QoS 1, and refuses a broker that grants less."""

import random
import select
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any

import structlog
from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from ingest_daemon.broker_access import AccessInUse, BrokerFiles
from ingest_daemon.errors import ProtocolError, SettingsError, UnsafeBrokerError
from ingest_daemon.settings import Settings
from ingest_daemon.state_dir import StateDir
from ingest_daemon.subscriptions import Subscriptions
from ingest_daemon.tls_causes import tls_cause
from ingest_daemon.transport import FrameSocket, Message

FIRST_DELAY_SECONDS, LAST_DELAY_SECONDS = 0.5, 30.0
STABLE_SECONDS = 30.0  # a connection that lived this long resets the back-off
SETUP_SECONDS = 20.0  # from TCP connect to SUBACK
MISC_INTERVAL_SECONDS = 0.25
PINGREQ = b"\xc0\x00"
SESSION_TAKEN_OVER = 0x8E

log = structlog.get_logger("ingest.mqtt")


class _Client(Client):
    """paho with our socket below it. `_create_socket` is the one private name we rely on (contract test: test_ingest_transport)."""

    wrap: Callable[[Any], FrameSocket]

    def _create_socket(self) -> FrameSocket:
        return self.wrap(super()._create_socket())


class Session:
    """One persistent MQTT 5 session, driven by the loop of a single thread; reconnects for ever.

    `on_open(session_present)` runs at CONNACK before `receive` returns any message of the connection, `on_close()` when the connection
    is gone. An acknowledgement goes out through `acknowledge`, in the order given.
    """

    def __init__(
        self,
        settings: Settings,
        state: StateDir,
        on_open: Callable[[bool], None],
        on_close: Callable[[], None],
        files: BrokerFiles | None = None,
    ) -> None:
        """`files`: the session uses what they found last. The owner calls `look` periodically. Raises SettingsError."""
        self._settings = settings
        self._state = state
        self._access = AccessInUse(files or BrokerFiles(settings))
        self._subscriptions = Subscriptions(settings, state)
        self._on_open, self._on_close = on_open, on_close
        self._poll = select.poll()
        self._polled = (-1, 0)  # descriptor and events that are registered
        self._transport: FrameSocket | None = None
        self._shown = self._access.current
        self._client = self._build()
        self._delay = FIRST_DELAY_SECONDS
        self._session_present = False
        self._next_attempt = 0.0
        self._short_lives = 0  # connections in a row that subscribed and were lost before they were stable
        self._asked_at = self._connected_at = self._next_misc = self._quiet_until = self._last_ping = 0.0
        self._answered = False  # whether the broker has answered CONNECT
        self.subscribed = False
        self.problem: str | None = "MQTT: not connected yet"
        self.server_certificate: bytes | None = None
        """What the broker showed when the last connection was made, DER; None without TLS."""

    def _build(self) -> _Client:
        settings = self._settings
        client = _Client(
            CallbackAPIVersion.VERSION2,
            client_id=settings.ingest_client_id,
            protocol=MQTTProtocolVersion.MQTTv5,
            manual_ack=True,
            reconnect_on_failure=False,
        )
        if settings.mqtt_user is not None:
            client.username_pw_set(settings.mqtt_user, self._shown.password)
        if self._shown.tls is not None:
            client.tls_set_context(self._shown.tls)
        client.wrap = self._wrap
        client.on_connect = self._connected
        client.on_subscribe = self._granted
        client.on_unsubscribe = self._unsubscribed
        client.on_disconnect = self._disconnected
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = settings.ingest_session_expiry_seconds
        properties.ReceiveMaximum = settings.ingest_in_flight_window
        host, port = settings.mqtt_address
        # paho's default clean_start wipes the broker's session at each start of the process.
        client.connect_async(host, port, settings.ingest_keepalive_seconds, clean_start=False, properties=properties)
        return client

    def _wrap(self, sock: Any) -> FrameSocket:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # a turn's PUBACKs are one write: nothing to wait for
        if isinstance(sock, ssl.SSLSocket):
            self.server_certificate = sock.getpeercert(binary_form=True)
        self._transport = FrameSocket(sock, self._client.loop_read)
        return self._transport

    # -- the loop's side ---------------------------------------------------------------------------------------
    @property
    def connected(self) -> bool:
        """Whether CONNACK has come and the connection still stands."""
        return self._transport is not None and not self._transport.closed and self._client.is_connected()

    def connect_if_due(self) -> None:
        """Start a connection unless there is one or the back-off says wait. Blocks for TCP and TLS set-up (5 s each at most)."""
        now = time.monotonic()
        if self._transport is not None or (now < self._next_attempt and not self._access.fresh):
            return
        self._access.take()
        if self._shown is not self._access.current:
            self._shown = self._access.current
            self._client = self._build()
        self._connected_at = now
        self.subscribed = self._answered = False
        try:
            self._client.reconnect()
        except ssl.SSLError as error:
            why = f"no TLS connection: {tls_cause(error)}"
            self._access.failed(why)
            self._lost(why)
        except (OSError, ValueError) as error:  # ValueError: paho's wrapping of certificate errors
            self._lost(f"can't connect: {error}")

    def wait(self, timeout_seconds: float, limit: int) -> bool:
        """Sleep until `receive(limit)` or `serve` has work, at most so long; whether the socket is readable."""
        transport = self._transport
        wanted = 0
        if transport is not None and not transport.closed:
            wanted = select.POLLIN * transport.want_read | select.POLLOUT * transport.want_write
            if transport.pending(limit):
                timeout_seconds = 0.0
        # A descriptor without wanted events isn't polled at all: a hang-up would wake us for ever.
        self._register(transport.fileno() if transport is not None and wanted else -1, wanted)
        events = self._poll.poll(timeout_seconds * 1000)
        return bool(events and events[0][1] & ~select.POLLOUT)

    def _register(self, descriptor: int, events: int) -> None:
        if (descriptor, events) == self._polled:
            return
        if self._polled[0] >= 0:
            self._poll.unregister(self._polled[0])
        if descriptor >= 0:
            self._poll.register(descriptor, events)
        self._polled = (descriptor, events)

    def receive(self, limit: int, *, readable: bool) -> list[Message]:
        """At most `limit` messages, all of the connection that stands on return. `limit` 0 still serves control packets."""
        transport = self._transport
        if transport is None or not (readable or transport.pending(limit)):
            return []
        try:
            return transport.receive(limit, readable=readable)
        except ProtocolError as error:
            self._give_up(f"protocol error: {error}")
            return []

    def acknowledge(self, packet_ids: list[int]) -> None:
        """Queue one PUBACK per packet id, in this order."""
        if packet_ids and self._transport is not None and not self._transport.closed:
            self._transport.send(b"".join([b"@\x02" + packet_id.to_bytes(2, "big") for packet_id in packet_ids]))

    def serve(self) -> None:
        """Write what is queued, and keep the connection alive; call once per turn."""
        transport = self._transport
        if transport is None:
            return
        now = time.monotonic()
        if not transport.closed and now >= self._next_misc:
            self._next_misc = now + MISC_INTERVAL_SECONDS
            self._keep_alive(transport, now)
            self._follow_filters(now)
        if not transport.closed:
            if self._client.want_write():
                self._client.loop_write()
            transport.flush()

    def _keep_alive(self, transport: FrameSocket, now: float) -> None:
        heard, transport.heard = transport.heard, False
        if transport.blocked or heard:
            # A PINGRESP held back by us, or behind the messages on a slow link, can't reach paho, and paho would take that for a dead
            # broker: it does not see the messages. Ping for the broker's sake.
            self._quiet_until = now + self._client.keepalive / 2  # as the broker may have shortened it
            if now - self._last_ping >= self._client.keepalive / 2:
                self._last_ping = now
                transport.send(PINGREQ)
            return
        if now >= self._quiet_until:
            self._client.loop_misc()
        if not self.subscribed and not transport.closed and now - self._connected_at > SETUP_SECONDS:
            self._give_up(f"no subscription {SETUP_SECONDS:.0f} s after connecting: {self.problem}")

    @property
    def renewal_due(self) -> bool:
        """Whether to call `renew` once nothing is in flight: the files hold new certificates."""
        return self._access.renewal_due and self.subscribed

    @property
    def notices(self) -> list[str]:
        """What is worth saying although messages flow."""
        return [self._access.refused] if self._access.refused else []

    def renew(self) -> None:
        """Leave, and connect again at the next `connect_if_due`; the broker keeps the session. What is unacknowledged comes again."""
        log.info("reconnecting", reason="new certificates")
        self.close()
        self.subscribed = False
        self.problem = "MQTT: reconnecting with new certificates"
        self._next_attempt = 0.0
        self._on_close()

    def close(self) -> None:
        """Flush acknowledgements and leave; the broker keeps the session for the next start."""
        transport, self._transport = self._transport, None
        self._register(-1, 0)
        if transport is not None:
            self._client.disconnect()  # paho writes DISCONNECT and closes the transport, which flushes
            transport.close()

    # -- paho's callbacks --------------------------------------------------------------------------------------
    def _connected(self, client: Client, _userdata: object, flags: ConnectFlags, reason: ReasonCode, properties: Properties | None) -> None:
        self._answered = True
        if reason.is_failure:
            self.problem = f"MQTT: the broker refuses the connection: {reason} (IOT_MQTT_URL, IOT_INGEST_CLIENT_ID)"
            self._access.failed(f"the broker refuses the connection: {reason}")
            return
        self._access.worked()
        self._refuse_unsafe(properties)
        self._session_present = flags.session_present
        try:
            self._on_open(flags.session_present)
        except SettingsError as error:  # the disk is full, say: without a connection number nothing may be taken
            self._give_up(str(error))
            return
        self._subscriptions.connected(session_present=flags.session_present)
        self._subscribe(client)
        if not self._subscriptions.asked:
            return
        self.problem = "MQTT: connected, waiting for the subscription"

    def _refuse_unsafe(self, properties: Properties | None) -> None:
        asked = self._settings.ingest_session_expiry_seconds
        granted = getattr(properties, "SessionExpiryInterval", asked)
        if granted < min(asked, 3600):
            raise UnsafeBrokerError(
                f"IOT_INGEST_SESSION_EXPIRY_SECONDS: asked {asked}, the broker grants {granted}; allow persistent sessions there"
            )
        if granted < asked:
            log.warning(
                "session_expiry_shortened", asked_seconds=asked, granted_seconds=granted, setting="IOT_INGEST_SESSION_EXPIRY_SECONDS"
            )
        if getattr(properties, "MaximumQoS", 2) < 1:
            raise UnsafeBrokerError("IOT_MQTT_URL: this broker offers QoS 0 only, which loses messages; QoS 1 is needed")
        if hasattr(properties, "AssignedClientIdentifier"):
            raise UnsafeBrokerError("IOT_INGEST_CLIENT_ID: the broker replaced it by a random one; a session under it can't be resumed")
        if self._settings.ingest_shared_group and not getattr(properties, "SharedSubscriptionAvailable", 1):
            raise UnsafeBrokerError("IOT_INGEST_SHARED_GROUP: this broker has no shared subscriptions")

    def _subscribe(self, client: Client) -> None:
        """Ask for the filters that this connection lacks; only when the state directory knows them."""
        try:
            lacking = self._subscriptions.ask(self._access.topic_filters)
        except SettingsError as error:
            self._give_up(str(error))
            return
        if lacking:
            self._asked_at = time.monotonic()
            options = SubscribeOptions(qos=1, retainHandling=SubscribeOptions.RETAIN_SEND_IF_NEW_SUB)
            client.subscribe([(one, options) for one in lacking])

    def _follow_filters(self, now: float) -> None:
        """Bring the live connection's subscriptions to what the files hold now, one step at a time."""
        if not self.subscribed or self._transport is None:
            return
        if self._subscriptions.waiting:
            if now - self._asked_at > SETUP_SECONDS:
                self._give_up(f"no answer to a change of subscriptions within {SETUP_SECONDS:.0f} s")
        elif self._subscriptions.differ(self._access.topic_filters):
            self._subscribe(self._client)
            self._unsubscribe(self._client)

    def _unsubscribe(self, client: Client) -> None:
        """Give up what is not wanted any more, once all that is wanted is granted: between or without both, messages would be lost."""
        if gone := self._subscriptions.give_up(self._access.topic_filters):
            self._asked_at = time.monotonic()
            client.unsubscribe(list(gone))

    def _granted(self, client: Client, _userdata: object, _mid: int, reasons: list[ReasonCode], _properties: Properties | None) -> None:
        asked = self._subscriptions.asked
        for one, reason in zip(asked, reasons, strict=False):
            if not reason.is_failure and reason.value < 1:
                raise UnsafeBrokerError(f"IOT_MQTT_TOPIC_FILTER: the broker grants only QoS 0 on {one}, and that loses; allow QoS 1")
        refused = self._subscriptions.answered(reasons)
        if refused:
            log.error("subscription_refused", reason=refused)
        self.problem = f"MQTT: {refused}" if refused else None
        if not self._subscriptions.granted:
            return
        self.subscribed = True
        log.info("subscribed", topic_filters=self._subscriptions.granted)
        self._unsubscribe(client)

    def _unsubscribed(
        self, _client: Client, _userdata: object, _mid: int, reasons: list[ReasonCode], _properties: Properties | None
    ) -> None:
        try:
            gone, refused = self._subscriptions.given_up(reasons)
        except SettingsError as error:
            self._give_up(str(error))
            return
        if refused:
            log.error("unsubscribe_refused", topic_filters=refused, reasons=[str(reason) for reason in reasons])
        if gone:
            log.info("unsubscribed", topic_filters=gone)

    def _disconnected(
        self, _client: Client, _userdata: object, flags: DisconnectFlags, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        if self._transport is None:
            return
        why = tls_cause(failure) if isinstance(failure := self._transport.failure, ssl.SSLError) else str(reason)
        if not self._answered:
            self._access.failed(why)
        if reason.value == SESSION_TAKEN_OVER and flags.is_disconnect_packet_from_server:
            self._connected_at = time.monotonic()  # no reset of the back-off: two daemons would throw each other out for ever
            self._lost("another client uses the same client id (IOT_INGEST_CLIENT_ID); each daemon needs its own")
        elif self.problem and "refuses" in self.problem:
            self._lost(self.problem.removeprefix("MQTT: "))
        elif self.subscribed and self._short_lives >= 1:
            # Mosquitto 2.0 throws the older of two equal client ids out without a word.
            self._lost(f"connection lost soon after it was made, again: {why}; does another client use the same IOT_INGEST_CLIENT_ID?")
        else:
            self._lost(f"connection lost: {why}")

    # -- inside ------------------------------------------------------------------------------------------------
    def _give_up(self, why: str) -> None:
        """Drop the connection without DISCONNECT."""
        if self._transport is not None:
            self._transport.close()
        self._lost(why)

    def _lost(self, why: str) -> None:
        self._transport = None
        now = time.monotonic()
        if now - self._connected_at >= STABLE_SECONDS:
            self._delay = FIRST_DELAY_SECONDS
            self._short_lives = 0
        elif self.subscribed:
            self._short_lives += 1
        self.subscribed = False
        self._register(-1, 0)
        self._next_attempt = now + self._delay * random.uniform(0.5, 1.0)  # noqa: S311  jitter, not a secret
        self._delay = min(self._delay * 2, LAST_DELAY_SECONDS)
        self.problem = f"MQTT: {why}"
        host, port = self._settings.mqtt_address
        log.warning(
            "mqtt_disconnected", why=why, host=host, port=port, setting="IOT_MQTT_URL", retry_in_seconds=round(self._next_attempt - now, 1)
        )
        self._on_close()
