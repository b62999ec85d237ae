"""The MQTT session: a paho client that connects persistently, subscribes at QoS 1, and refuses a broker that grants less."""

import random
import select
import socket
import ssl
import time
from collections.abc import Callable
from enum import IntEnum
from typing import Any

import structlog
from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from ingest_daemon import broker_needs, mqtt_causes
from ingest_daemon.broker_access import AccessInUse, BrokerFiles
from ingest_daemon.errors import ProtocolError, SettingsError, UnsafeBrokerError
from ingest_daemon.mqtt_client import MqttClient, build
from ingest_daemon.protocol import Answer, Attempt, Protocol, ProtocolChoice, answer_of
from ingest_daemon.settings import Settings
from ingest_daemon.state_dir import StateDir
from ingest_daemon.subscriptions import Subscriptions
from ingest_daemon.tls_causes import tls_cause
from ingest_daemon.transport import PINGREQ, FrameSocket, Message

FIRST_DELAY_SECONDS, LAST_DELAY_SECONDS = 0.5, 30.0
STABLE_SECONDS = 30.0  # a connection that lived this long resets the back-off
SETUP_SECONDS = 20.0  # from CONNECT to CONNACK, and from SUBSCRIBE to SUBACK
FIRST_ASK_SECONDS, LAST_ASK_SECONDS = 0.5, 30.0  # until a refused SUBSCRIBE goes out again
# Some brokers (mochi 2.7) refuse a SUBSCRIBE whose packet identifier one of their own messages in flight has; they number these from 1.
LOWEST_SUBSCRIBE_ID, LAST_ID = 0x8000, 0xFFFF
MISC_INTERVAL_SECONDS = 0.25
PROOF_INTERVAL_SECONDS = 1.0
DISCONNECT = b"\xe0\x00"
KEEPALIVE_TIMEOUT, PROTOCOL_ERROR = 0x8D, 0x82  # paho's own reasons, of a connection that ended without DISCONNECT

log = structlog.get_logger("ingest.mqtt")


class _Stage(IntEnum):
    """How far the connection is."""

    NONE = 0
    CONNECT_SENT = 1
    CONNACK_SEEN = 2
    SUBSCRIBED = 3


class Session:
    """One persistent session by MQTT 5 or 3.1.1, driven by the loop of a single thread; reconnects for ever.

    `on_open(session_present)` runs at CONNACK before `receive` returns any message of the connection, `on_close()` when the connection
    is gone. An acknowledgement goes out through `acknowledge`, in the order given.
    """

    def __init__(
        self,
        settings: Settings,
        state: StateDir,
        on_open: Callable[[bool], None],
        on_close: Callable[[], None],
        files: BrokerFiles,
    ) -> None:
        """`files`: the session uses what they found last. The owner calls `look` periodically. Raises SettingsError."""
        self._settings = settings
        self._state = state
        self._access = AccessInUse(files)
        self._subscriptions = Subscriptions(settings, state)
        self._on_open, self._on_close = on_open, on_close
        self._poll = select.poll()
        self._polled = (-1, 0)  # descriptor and events that are registered
        self._transport: FrameSocket | None = None
        host, port = settings.mqtt_address
        self._address = f"{host}:{port}"
        worked = state.protocol_at(self._address)
        self._choice = ProtocolChoice(settings.mqtt_protocol, Protocol(worked) if worked else None)
        self._attempt, self._shown = self._choice.attempt, self._access.current
        self._client = self._build()
        self._delay = FIRST_DELAY_SECONDS
        self._session_present = False
        self._next_attempt = 0.0
        self._short_lives = 0  # connections in a row that subscribed and were lost before they were stable
        self._connected_at = self._next_misc = self._quiet_until = self._last_ping = 0.0
        self._acknowledged = 0
        self._proof: tuple[int, int] | None = None  # the PINGREQ whose answer proves, and up to which sequence
        self._next_proof = 0.0
        self.proven = 0
        """Up to this sequence of the connection the broker has certainly read our acknowledgements."""
        self._stage = _Stage.NONE
        self._asked_at = 0.0
        self._ask_again_at: float | None = None  # when a refused SUBSCRIBE goes out again
        self._ask_delay = FIRST_ASK_SECONDS
        self._keeps_asking = False  # the connection stays although the subscription is refused
        self._refusal: str | None = None  # by CONNACK or SUBACK
        self.problem: str | None = "MQTT: not connected yet"
        self.server_certificate: bytes | None = None
        """What the broker showed when the last connection was made, DER; None without TLS."""

    def _build(self) -> MqttClient:
        client = build(self._settings, self._attempt, self._shown)
        client.wrap = self._wrap
        client.on_connect = self._probed if self._attempt.probe else self._connected
        client.on_subscribe = self._granted
        client.on_unsubscribe = self._unsubscribed
        client.on_disconnect = self._disconnected
        return client

    def _wrap(self, sock: Any) -> FrameSocket:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # a turn's PUBACKs are one write: nothing to wait for
        if isinstance(sock, ssl.SSLSocket):
            self.server_certificate = sock.getpeercert(binary_form=True)
        self._transport = FrameSocket(sock, self._control, properties=self._attempt.protocol is Protocol.V5)
        return self._transport

    def _control(self) -> None:
        """A control packet, or the end of the stream, waits for paho."""
        if self._stage is _Stage.CONNECT_SENT and self._answer() is Answer.UNREACHABLE:
            self._give_up("no CONNACK")
            return
        self._client.loop_read()

    # -- the loop's side ---------------------------------------------------------------------------------------
    @property
    def subscribed(self) -> bool:
        """Whether the broker has granted the subscription on this connection."""
        return self._stage is _Stage.SUBSCRIBED

    @property
    def protocol(self) -> Protocol:
        """The MQTT version of the connection, or of the last attempt."""
        return self._attempt.protocol

    def connect_if_due(self) -> None:
        """Start a connection unless there is one or the back-off says wait. Blocks for TCP and TLS set-up (5 s each at most)."""
        now = time.monotonic()
        if self._transport is not None or (now < self._next_attempt and not self._access.fresh):
            return
        self._access.take()
        attempt, shown = self._choice.attempt, self._access.current
        if attempt != self._attempt or shown is not self._shown:
            self._attempt, self._shown = attempt, shown
            self._client = self._build()
        if attempt == Attempt(Protocol.V311):
            broker_needs.refuse_literal_share(self._settings)
        self._connected_at = now
        self._stage = _Stage.NONE
        self._ask_again_at = self._refusal = None
        self._ask_delay, self._keeps_asking = FIRST_ASK_SECONDS, False
        try:
            self._client.reconnect()
        except ssl.SSLError as error:
            why = f"no TLS connection: {tls_cause(error)}"
            self._access.failed(why)
            self._lost(why)
            return
        except (OSError, ValueError) as error:  # ValueError: paho's wrapping of certificate errors
            self._lost(f"can't connect: {error} (IOT_MQTT_URL)")
            return
        self._stage = _Stage.CONNECT_SENT
        self._asked_at = time.monotonic()

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

    def acknowledge(self, packet_ids: list[int], sequence: int) -> None:
        """Queue one PUBACK per packet id (PUBREC: see `transport.BY_PUBREC`), in this order; the last one is that of the message with this
        sequence."""
        if packet_ids and self._transport is not None and not self._transport.closed:
            self._transport.acknowledge(packet_ids)
            self._acknowledged = sequence

    def serve(self) -> None:
        """Write what is queued, and keep the connection alive; call once per turn."""
        transport = self._transport
        if transport is None:
            return
        now = time.monotonic()
        if not transport.closed and now >= self._next_misc:
            self._next_misc = now + MISC_INTERVAL_SECONDS
            self._prove(transport, now)
            self._keep_alive(transport, now)
            self._follow_filters(now)
        if not transport.closed:
            if self._client.want_write():
                self._client.loop_write()
            transport.flush()

    def _prove(self, transport: FrameSocket, now: float) -> None:
        """A broker reads what we send in order: the answer to a PINGREQ proves that it has the acknowledgements before that."""
        if self._proof is not None and transport.pings_answered >= self._proof[0]:
            self.proven, self._proof = self._proof[1], None
        # Answers carry no number: only one that nothing else waits for is ours.
        idle = self._proof is None and transport.pings_sent == transport.pings_answered
        if idle and self._acknowledged > self.proven and now >= self._next_proof:
            self._next_proof = now + PROOF_INTERVAL_SECONDS
            transport.send(PINGREQ)
            self._proof = transport.pings_sent, self._acknowledged

    def _keep_alive(self, transport: FrameSocket, now: float) -> None:
        if self._stage is _Stage.CONNECT_SENT:
            if now - self._asked_at > SETUP_SECONDS:
                self._give_up(mqtt_causes.silent(self._attempt.protocol, SETUP_SECONDS))
            return  # paho would take a broker that is slow to answer CONNECT for one that missed a ping
        if self._ask_again_at is not None and now >= self._ask_again_at:
            self._subscribe()
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
        if self.subscribed or transport.closed or self._keeps_asking:
            return
        if now - (self._connected_at if self._refusal else self._asked_at) > SETUP_SECONDS:
            self._give_up(self._refusal or mqtt_causes.no_suback(f"no answer to SUBSCRIBE within {SETUP_SECONDS:.0f} s"))

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
        self._stage = _Stage.NONE
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
        if reason.is_failure:
            self._refused(mqtt_causes.connection_refused(reason, self._attempt.protocol))
            return
        self._stage = _Stage.CONNACK_SEEN
        self._access.worked()
        broker_needs.refuse_unsafe(self._settings, properties)
        self._choice.learn(Answer.CONNACK)
        self._remember_protocol()
        self._session_present = flags.session_present
        self._acknowledged, self._proof, self.proven = 0, None, 0
        try:
            self._on_open(flags.session_present)
        except SettingsError as error:  # the disk is full, say: without a connection number nothing may be taken
            self._give_up(str(error))
            return
        self.problem = "MQTT: connected, waiting for the subscription"
        self._subscriptions.connected(session_present=flags.session_present)
        self._subscribe()

    def _probed(self, _client: Client, _userdata: object, _flags: ConnectFlags, _reason: ReasonCode, _properties: object) -> None:
        """The broker has answered a probe, whatever it says."""
        if self._transport is not None:
            self._transport.send(DISCONNECT)
        self._give_up("CONNACK")

    def _subscribe(self) -> None:
        """Ask for what this connection lacks; under 3.1.1 the broker sends its retained messages again each time, with RETAIN set.

        A session that is present may lack it all the same, if the broker was killed before it saved it: so it is asked for on each
        connection. Rather a retained message twice than a message that nobody gets.
        """
        self._ask_again_at, self._asked_at = None, time.monotonic()
        try:
            lacking = self._subscriptions.ask(self._access.topic_filters)
        except SettingsError as error:
            self._give_up(str(error))
            return
        if not lacking:
            return
        self._client.number_next(random.randrange(LOWEST_SUBSCRIBE_ID, LAST_ID))  # noqa: S311  no secret
        if self._attempt.protocol is Protocol.V5:
            options = SubscribeOptions(qos=1, retainHandling=SubscribeOptions.RETAIN_SEND_IF_NEW_SUB)
            self._client.subscribe([(one, options) for one in lacking])
        else:
            self._client.subscribe([(one, 1) for one in lacking])

    def _follow_filters(self, now: float) -> None:
        """Bring the live connection's subscriptions to what the files hold now, one step at a time."""
        if not self.subscribed or self._transport is None or self._transport.closed:
            return
        if self._subscriptions.waiting:
            if now - self._asked_at > SETUP_SECONDS:
                self._give_up(f"no answer to a change of subscriptions within {SETUP_SECONDS:.0f} s")
        elif self._subscriptions.differ(self._access.topic_filters):
            self._ask_delay = FIRST_ASK_SECONDS
            self._subscribe()
            self._unsubscribe()

    def _unsubscribe(self) -> None:
        """Give up what is not wanted any more, once all that is wanted is granted: between or without both, messages would be lost."""
        if gone := self._subscriptions.give_up(self._access.topic_filters):
            self._asked_at = time.monotonic()
            self._client.unsubscribe(list(gone))

    def _granted(self, _client: Client, _userdata: object, _mid: int, reasons: list[ReasonCode], _properties: Properties | None) -> None:
        for one, reason in zip(self._subscriptions.asked, reasons, strict=False):
            if not reason.is_failure and reason.value < 1:
                raise UnsafeBrokerError(f"IOT_MQTT_TOPIC_FILTER: the broker grants only QoS 0 on {one}, and that loses; allow QoS 1")
        refused = self._subscriptions.answered(reasons)
        if self._subscriptions.granted:
            self._stage = _Stage.SUBSCRIBED
        if refused:
            self._ask_again(refused)
            return
        self.problem = self._refusal = None
        log.info("subscribed", topic_filters=self._subscriptions.granted)
        self._unsubscribe()

    def _unsubscribed(
        self, _client: Client, _userdata: object, _mid: int, reasons: list[ReasonCode], _properties: Properties | None
    ) -> None:
        try:
            gone, kept = self._subscriptions.given_up(reasons)
        except SettingsError as error:
            self._give_up(str(error))
            return
        if kept:
            log.error("unsubscribe_refused", topic_filters=kept, reasons=[str(reason) for reason in reasons])
        if gone:
            log.info("unsubscribed", topic_filters=gone)

    def _ask_again(self, refused: dict[str, ReasonCode]) -> None:
        """The connection stays: a session that is present has its messages, and what is granted works."""
        why = "; ".join(mqtt_causes.subscription_refused(reason, one, self._attempt.protocol) for one, reason in refused.items())
        if why != self._refusal:
            log.error("subscription_refused", why=why)
        self._refused(why)
        self._ask_again_at = time.monotonic() + self._ask_delay
        self._ask_delay = min(2 * self._ask_delay, LAST_ASK_SECONDS)
        temporary = any(reason.value in mqtt_causes.TEMPORARY for reason in refused.values())
        self._keeps_asking = self._session_present or temporary

    def _refused(self, why: str) -> None:
        self._refusal = why
        self.problem = f"MQTT: {why}"

    def _disconnected(
        self, _client: Client, _userdata: object, flags: DisconnectFlags, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        transport = self._transport
        if transport is None:
            return
        if flags.is_disconnect_packet_from_server:
            if reason.value == mqtt_causes.TAKEN_OVER:
                self._connected_at = time.monotonic()  # no reset of the back-off: two daemons would throw each other out for ever
                self._lost("another client uses the same client id (IOT_INGEST_CLIENT_ID); each daemon needs its own")
            else:
                self._lost(self._refusal or mqtt_causes.disconnected(reason))
            return
        ending = transport.ending
        if reason.value == KEEPALIVE_TIMEOUT:
            ending = f"no answer to a ping for {self._client.keepalive} s (IOT_INGEST_KEEPALIVE_SECONDS)"
        elif reason.value == PROTOCOL_ERROR:
            ending = f"the broker sent what {mqtt_causes.speaks(self._attempt.protocol)} does not allow"
        self._lost(self._refusal or self._why_lost(ending))

    def _why_lost(self, ending: str) -> str:
        protocol = self._attempt.protocol
        if self._stage is _Stage.CONNECT_SENT:
            answer = self._answer()
            if answer is Answer.NONE:
                return mqtt_causes.no_connack(ending, protocol)
            return mqtt_causes.unsupported(protocol) if answer is Answer.UNSUPPORTED else mqtt_causes.lost(ending)
        if self._stage is _Stage.CONNACK_SEEN:
            return mqtt_causes.no_suback(ending)
        if self._short_lives >= 1:
            # Mosquitto 2.0 throws the older of two equal client ids out without a word.
            return f"connection lost soon after it was made, again: {ending}; does another client use the same IOT_INGEST_CLIENT_ID?"
        return mqtt_causes.lost(ending)

    # -- inside ------------------------------------------------------------------------------------------------
    def _answer(self) -> Answer:
        if self._transport is not None and self._transport.failed_tls:
            return Answer.UNREACHABLE
        return answer_of(self._transport.greeting if self._transport is not None else b"", self._attempt.protocol)

    def _remember_protocol(self) -> None:
        protocol = self._attempt.protocol
        if protocol is Protocol.V311 and self._settings.mqtt_protocol == "auto" and self._state.protocol_at(self._address) != protocol:
            log.warning(
                "mqtt_protocol_fallback",
                protocol=protocol,
                hint="the broker does not speak MQTT 5; this is remembered, and IOT_MQTT_PROTOCOL=5 undoes it",
                setting="IOT_MQTT_PROTOCOL",
            )
        try:
            self._state.remember_protocol(protocol, self._address)
        except SettingsError as error:  # a full disk must not keep us from a broker that is well
            log.warning("mqtt_protocol_not_remembered", reason=str(error))

    def _give_up(self, why: str) -> None:
        """Drop the connection; without DISCONNECT, unless one is queued."""
        if self._transport is not None:
            self._transport.close()
        self._lost(why)

    def _lost(self, why: str) -> None:
        now = time.monotonic()
        if self._stage is _Stage.CONNECT_SENT:
            answer = self._answer()
            if answer is Answer.UNREACHABLE and self._transport is not None:
                transport = self._transport
                why = transport.ending if transport.failed_tls else mqtt_causes.no_mqtt(transport.greeting)
            self._choice.learn(answer)
            if not self._attempt.probe and answer is not Answer.UNSUPPORTED:  # those ask about the version, or were told about it
                self._access.failed(why)
        elif self._stage is _Stage.NONE:
            self._choice.learn(Answer.UNREACHABLE)
        self._transport = None
        self._register(-1, 0)
        subscribed, self._stage = self.subscribed, _Stage.NONE
        if self._attempt.probe:
            self._next_attempt = now + FIRST_DELAY_SECONDS
            log.info("mqtt_protocol_probed", protocol=self._attempt.protocol, answer=why)
            return
        if now - self._connected_at >= STABLE_SECONDS:
            self._delay = FIRST_DELAY_SECONDS
            self._short_lives = 0
        elif subscribed:
            self._short_lives += 1
        self._next_attempt = now + self._delay * random.uniform(0.5, 1.0)  # noqa: S311  jitter, not a secret
        self._delay = min(self._delay * 2, LAST_DELAY_SECONDS)
        self.problem = f"MQTT: {why}"
        host, port = self._settings.mqtt_address
        log.warning(
            "mqtt_disconnected", why=why, host=host, port=port, setting="IOT_MQTT_URL", retry_in_seconds=round(self._next_attempt - now, 1)
        )
        self._on_close()
