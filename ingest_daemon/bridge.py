"""The loop that carries messages from the MQTT session into Kafka and acknowledgements back."""

import time
from collections.abc import Callable

import structlog

from ingest_daemon import envelope
from ingest_daemon.inflight import Connection, InFlight, Pending
from ingest_daemon.kafka import KafkaSink
from ingest_daemon.metrics import Metrics
from ingest_daemon.session import Session
from ingest_daemon.settings import Settings
from ingest_daemon.state_dir import StateDir

TURN_MESSAGES = 300  # without a bound per turn a fast broker starves acknowledgements and keepalive
BUSY_SECONDS, STUCK_SECONDS, IDLE_SECONDS = 0.002, 0.05, 0.25
STUCK_AFTER_SECONDS = 1.0
HEALTHY_SECONDS = 45.0  # longer than any blocking step: name look-up, TCP and TLS set-up, replacing a producer

log = structlog.get_logger("ingest.bridge")


class Bridge:
    """Owns the in-flight window. Each message: received → Kafka has it → acknowledged; a death in between means redelivery."""

    def __init__(self, settings: Settings, state: StateDir, sink: KafkaSink, metrics: Metrics) -> None:
        self._settings = settings
        self._state = state
        self._sink = sink
        self._metrics = metrics
        self._client_id = settings.ingest_client_id.encode()
        self._session = Session(settings, state, self._opened, self._accept, self._closed)
        self._connection: Connection | None = None
        self._in_flight = InFlight()
        self._received_at_us = 0
        self._redelivered = 0
        self._last_settled = time.monotonic()
        self._last_turn = time.monotonic()

    # -- other threads may ask ---------------------------------------------------------------------------------
    def healthy(self) -> list[str]:
        """Empty while the loop makes progress."""
        age = time.monotonic() - self._last_turn
        return [f"the loop has made no progress for {age:.0f} s"] if age > HEALTHY_SECONDS else []

    def ready(self) -> list[str]:
        """Empty while messages can flow; else what is in the way."""
        return [problem for problem in (self._session.problem, self._sink.problem) if problem]

    # -- the loop ----------------------------------------------------------------------------------------------
    def run(self, stop: Callable[[], bool], force: Callable[[], bool]) -> int:
        """Work until `stop`, then drain (bounded); how many messages were left to redelivery.

        Raises:
            UnsafeBrokerError: the broker can't keep the promise. Never retry.
            KafkaStuckError: only a new process helps.
        """
        while not stop():
            self._session.connect_if_due()
            self._turn(self._room())
        deadline = time.monotonic() + self._settings.ingest_shutdown_seconds
        log.info("draining", in_flight=len(self._in_flight), at_most_seconds=self._settings.ingest_shutdown_seconds)
        while len(self._in_flight) and time.monotonic() < deadline and not force():
            self._turn(0)
        left = len(self._in_flight)
        self._session.close()
        self._sink.close()
        return left

    def _room(self) -> int:
        if self._sink.stalled or self._in_flight.payload_bytes >= self._settings.ingest_in_flight_bytes:
            return 0
        return min(TURN_MESSAGES, self._settings.ingest_in_flight_window - len(self._in_flight))

    def _turn(self, limit: int) -> None:
        readable = self._session.wait(self._pause_seconds(), limit)
        self._received_at_us = time.time_ns() // 1000
        taken = self._session.receive(limit, readable=readable)
        self._sink.poll()
        settled = self._in_flight.settle(self._connection)
        self._session.acknowledge(settled.packet_ids)
        self._session.serve()
        self._last_turn = time.monotonic()
        self._count(taken, settled.delivered, settled.dead_lettered)

    def _pause_seconds(self) -> float:
        """librdkafka's reports don't wake us: look often while some are due, seldom while Kafka is stuck."""
        if not len(self._in_flight):
            return IDLE_SECONDS
        return BUSY_SECONDS if self._last_turn - self._last_settled < STUCK_AFTER_SECONDS else STUCK_SECONDS

    def _count(self, taken: int, delivered: int, dead_lettered: int) -> None:
        metrics = self._metrics
        if delivered or dead_lettered or not len(self._in_flight):
            self._last_settled = self._last_turn
        if delivered:
            metrics.delivered.inc(delivered)
            self._sink.problem = None
        if dead_lettered:
            metrics.dead_lettered.inc(dead_lettered)
        if taken:
            metrics.received.inc(taken)
            metrics.last_message.set(self._received_at_us / 1e6)
        if self._redelivered:
            metrics.redelivered.inc(self._redelivered)
            self._redelivered = 0
        metrics.in_flight.set(len(self._in_flight))
        metrics.in_flight_bytes.set(self._in_flight.payload_bytes)
        metrics.mqtt_connected.set(self._session.subscribed)

    # -- the session's side ------------------------------------------------------------------------------------
    def _opened(self, session_present: bool) -> None:
        first_ever = self._state.last_connection is None
        self._connection = Connection(self._state.next_connection(), self._sink.failed)
        self._metrics.connections.inc()
        log.info("connected", connection=self._connection.number, session_present=session_present)
        if not session_present and not first_ever:
            self._metrics.sessions_lost.inc()
            log.warning(
                "session_lost",
                hint="the broker no longer had this client's session; messages it would have kept are gone",
                setting="IOT_INGEST_CLIENT_ID",
            )

    def _closed(self) -> None:
        self._connection = None

    def _accept(self, first: int, topic: bytes, packet_id: int, payload: bytes) -> None:
        connection = self._connection
        if connection is None:
            return  # before CONNACK: nothing that we subscribed to; unacknowledged, so redelivered
        connection.sequence = sequence = connection.sequence + 1
        header = envelope.pack(first, packet_id, self._received_at_us, connection.number, sequence, self._client_id)
        pending = Pending(connection, packet_id, sequence, topic, payload, header)
        self._in_flight.add(pending)
        self._sink.send(pending)
        if first & 0x08:
            self._redelivered += 1
