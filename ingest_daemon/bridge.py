"""The loop that carries messages from the MQTT session into Kafka and acknowledgements back."""

import time
from collections.abc import Callable
from zlib import crc32

import structlog

from ingest_daemon import envelope
from ingest_daemon.accounting import Accounting, Turn
from ingest_daemon.broker_access import BrokerFiles
from ingest_daemon.inflight import Connection, InFlight, Pending, Settled
from ingest_daemon.probe import PAYLOAD_BYTES, Probes
from ingest_daemon.receive_clock import ReceiveClock
from ingest_daemon.redelivery import Redelivery
from ingest_daemon.session import Session
from ingest_daemon.settings import Settings
from ingest_daemon.silence import Silence
from ingest_daemon.sink import Sink
from ingest_daemon.state_dir import StateDir
from ingest_daemon.transport import BY_PUBREC, DUP, QOS_2, Message
from ingest_daemon.unacknowledged import NO_ORIGIN, REPEATS_SAME, Receipt, Unacknowledged

TURN_MESSAGES = 300  # without a bound per turn a fast broker starves acknowledgements and keepalive
BUSY_SECONDS, STUCK_SECONDS, IDLE_SECONDS = 0.002, 0.05, 0.25
GROWING_SECONDS = 0.0005  # so long after a message none has followed: the broker waits for our acknowledgement, or for devices
STUCK_AFTER_SECONDS = 1.0
SEEDS_BYTES = 8 * 1024 * 1024  # of topics whose checksums are kept
CALM_SECONDS = 10.0  # so long, new certificates wait for what is in flight
DUP_OR_QOS_2 = DUP | QOS_2
HEALTHY_SECONDS = 45.0  # longer than any blocking step: name look-up, TCP and TLS set-up, replacing a producer

log = structlog.get_logger("ingest.bridge")


class Bridge:
    """Each message: received → Kafka or the spool has it → acknowledged; a death in between means redelivery."""

    def __init__(  # noqa: PLR0917  its parts, each once
        self,
        settings: Settings,
        state: StateDir,
        in_flight: InFlight,
        sink: Sink,
        accounting: Accounting,
        receive_clock: ReceiveClock,
        *,
        on_resent: Callable[[int], object],
        files: BrokerFiles,
        silence: Silence,
        probes: Probes,
    ) -> None:
        """`on_resent` is told how many messages came again on a connection that had them in flight. `files`: the session uses what they
        found last; the owner calls `look` periodically.
        """
        self._on_resent = on_resent
        self._settings = settings
        self._state = state
        self._sink = sink
        self._accounting = accounting
        self._receive_clock = receive_clock
        self._client_id = settings.ingest_client_id.encode()
        self._silence = silence
        self._probes = probes
        self._session = Session(settings, state, self._opened, self._closed, files)
        self._grew = False  # whether the last turn brought messages
        self._renew_by = 0.0  # the latest time to show new certificates; 0: there are none
        self._connection: Connection | None = None
        self._in_flight = in_flight
        self._unacknowledged = Unacknowledged(state.unacknowledged_file)
        self._redelivery = Redelivery(state, self._unacknowledged, settings.ingest_in_flight_window, time.monotonic)
        self._received = self._redelivered = self._resumed = 0
        self._held: dict[int, tuple[bytes, bytes]] | None = None  # what is in flight on the connection, once a turn has to know
        self._seeds: dict[bytes, int] = {}  # topic → what `digest_of` begins with
        self._seeds_bytes = 0
        self._last_settled = time.monotonic()
        self._last_turn = time.monotonic()

    # -- other threads may ask ---------------------------------------------------------------------------------
    def healthy(self) -> list[str]:
        """Empty while the loop makes progress."""
        age = time.monotonic() - self._last_turn
        return [f"the loop has made no progress for {age:.0f} s"] if age > HEALTHY_SECONDS else []

    @property
    def subscribed(self) -> bool:
        """Whether the MQTT broker sends messages."""
        return self._session.subscribed

    def ready(self) -> list[str]:
        """Empty while messages can flow; else what is in the way."""
        return [*filter(None, (self._session.problem, self._silence.problem)), *self._sink.problems]

    def notices(self) -> list[str]:
        """What is worth saying although messages flow."""
        return [*self._session.notices, *filter(None, (self._silence.notice,))]

    @property
    def server_certificate(self) -> bytes | None:
        """What the broker showed when the last connection was made, DER; None without TLS."""
        return self._session.server_certificate

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
            self._renew()
        self._drain(force)
        left = len(self._in_flight)
        self._session.close()
        self._sink.close()
        self._unacknowledged.close()
        return left

    def _drain(self, force: Callable[[], bool]) -> None:
        begun, seconds = time.monotonic(), self._settings.ingest_shutdown_seconds
        log.info("draining", in_flight=len(self._in_flight), at_most_seconds=seconds)
        self._sink.leave()
        while (len(self._in_flight) or self._sink.unfinished) and (gone := time.monotonic() - begun) < seconds and not force():
            if gone > seconds / 2:
                self._sink.spool_all()
            self._turn(0)

    def _renew(self) -> None:
        """New certificates are shown on a new connection, at a calm moment: nothing is read until all that was is acknowledged."""
        if not self._session.renewal_due:
            self._renew_by = 0.0
        elif not self._renew_by:
            self._renew_by = self._last_turn + CALM_SECONDS
        elif not len(self._in_flight) or self._last_turn >= self._renew_by:
            self._session.renew()

    def _room(self) -> int:
        if self._renew_by or self._in_flight.payload_bytes >= self._settings.ingest_in_flight_bytes:
            return 0
        taken = len(self._in_flight) + self._redelivery.held
        return min(TURN_MESSAGES, self._settings.ingest_in_flight_window - taken)

    def _turn(self, limit: int) -> None:
        pause, reports = self._pause_seconds(), 0.0
        if self._sink.awaits_reports and pause == BUSY_SECONDS:
            # What is in flight grows no more: a report comes next, and wakes only who waits for it.
            pause, reports = (GROWING_SECONDS, 0.0) if self._grew and limit > 0 else (0.0, BUSY_SECONDS)
        readable = self._session.wait(pause, limit)
        messages, last_received_us = self._session.receive(limit, readable=readable), 0
        if messages:
            self._silence.heard()
        elif not self._session.subscribed:
            self._silence.deaf()
        if admitted := self._redelivery.admit(messages):
            last_received_us = self._accept(admitted)
        self._grew = bool(messages)
        self._sink.poll(0.0 if messages else reports)
        settled = self._in_flight.settle(self._connection)
        # Before anything of it can be acknowledged or deleted: a kill must find it counted.
        self._record(last_received_us, settled)
        if (connection := self._connection) is not None:
            sequence = settled.last.get(connection.number, 0)
            self._redelivery.passed(sequence, self._session.proven)
            self._session.acknowledge(settled.packet_ids, sequence)
        self._sink.push()
        self._session.serve()
        self._last_turn = time.monotonic()
        if settled.last or not len(self._in_flight):
            self._last_settled = self._last_turn

    def _accept(self, messages: list[Message]) -> int:
        """Number, stamp and send those that are not in flight already; the last receive time, 0 without any."""
        connection = self._connection
        if connection is None or not messages:
            return 0  # before CONNACK: nothing that we subscribed to; unacknowledged, so redelivered
        before = sequence = connection.sequence
        stamp_us = self._receive_clock.take(len(messages)) - before - 1  # and the sequence: the receive time
        number, client_id, known = connection.number, self._client_id, self._redelivery
        candidates, settled, ids, seeds = known.candidates, known.settled, known.ids, self._seeds
        pack, flags = envelope.pack_fixed, envelope.FLAGS_OF_FIRST_BYTE
        taken: list[Pending] = []
        marks: list[int] = []
        resent, self._held = 0, None
        for first, topic, packet_id, payload in messages:
            if len(payload) == PAYLOAD_BYTES and self._probes.take(topic, payload):
                answered = packet_id + BY_PUBREC if first & QOS_2 else packet_id
                if first & DUP and self._is_resent(connection, taken, answered, topic, payload):
                    resent += 1
                    continue
                connection.sequence = sequence
                self._hand_on(before + 1, marks, stamp_us, taken)  # it stands behind them
                taken.clear()
                self._in_flight.add_probe(connection, answered, topic, payload)
                self._held = None
                continue
            sequence += 1
            header = pack(envelope.VERSION, flags[first], packet_id, stamp_us + sequence, number, sequence) + client_id
            try:
                seed = seeds[topic]
            except KeyError:
                seed = self._seed(topic)
            # `digest_of` anew for each message: a call, and the topic, cost.
            digest, mark, answered = crc32(payload, seed ^ first & 1), packet_id << 16 | NO_ORIGIN, packet_id
            if first & DUP_OR_QOS_2 or ids[packet_id] > settled or digest in candidates:  # few: what follows costs more
                if first & QOS_2:
                    answered += BY_PUBREC
                if first & DUP and ids[packet_id] > settled and self._is_resent(connection, taken, answered, topic, payload):
                    resent += 1
                    sequence -= 1
                    continue
                if ids[packet_id] > before:  # of the same turn
                    self._unacknowledged.write(before + 1, marks, stamp_us)
                header, origin = self._recognised(header, first, packet_id, digest, sequence)
                mark = packet_id << 16 | origin
            if packet_id:
                ids[packet_id] = sequence
            marks.append(mark)
            marks.append(digest)
            taken.append(Pending(connection, answered, sequence, topic, payload, header))
        connection.sequence = sequence
        self._hand_on(before + 1, marks, stamp_us, taken)
        self._received += sequence - before
        if resent:
            self._on_resent(resent)
        return stamp_us + sequence if marks else 0

    def _hand_on(self, first: int, marks: list[int], stamp_us: int, taken: list[Pending]) -> None:
        """Give to Kafka what was taken; before it can have any of them, a kill must find all of the turn remembered."""
        if taken:
            self._unacknowledged.write(first, marks, stamp_us)
            self._sink.take(taken)

    def _seed(self, topic: bytes) -> int:
        self._seeds_bytes += len(topic) + 100
        if self._seeds_bytes > SEEDS_BYTES:
            self._seeds.clear()
            self._seeds_bytes = len(topic)
        seed = self._seeds[topic] = crc32(topic)
        return seed

    def _recognised(self, header: bytes, first: int, packet_id: int, digest: int, sequence: int) -> tuple[bytes, int]:
        """Header and origin of a message that may have come before."""
        redelivery = self._redelivery
        receipts: tuple[Receipt, ...] = redelivery.repeated(first, packet_id, digest, sequence - 1)
        origin = REPEATS_SAME if receipts else NO_ORIGIN
        candidate = None if receipts else redelivery.candidate(first, packet_id, digest)
        if candidate is not None:
            receipts, origin = candidate.receipts, candidate.index
            self._resumed += candidate.awaited
        if receipts:
            redelivery.note(packet_id, sequence, receipts)
            self._redelivered += 1
        elif first & DUP and not redelivery.known:  # the books of the last connection are lost: the flag is all there is
            self._redelivered += 1
            self._resumed += 1
        if receipts or (first & DUP and redelivery.known):
            header = envelope.with_receipts(header, redelivery.known, receipts)
        return header, origin

    def _is_resent(self, connection: Connection, taken: list[Pending], answered: int, topic: bytes, payload: bytes) -> bool:
        """Whether a message with DUP is in flight on this connection already: brokers without patience (NATS 30 s, Moquette 5 s) send it
        again. It is nothing new then, and one acknowledgement answers all copies.

        Only what has the same packet id, topic and bytes: anything else could be another message.
        """
        if self._held is None:
            self._held = self._in_flight.of(connection)
        same = next((one for one in reversed(taken) if one.packet_id == answered), None)
        return (self._held.get(answered) if same is None else (same.key, same.value)) == (topic, payload)

    def _pause_seconds(self) -> float:
        """Neither librdkafka's reports nor the disk wake us: look often while some are due, seldom while both are stuck."""
        if not len(self._in_flight) and not self._sink.working:
            return IDLE_SECONDS
        return BUSY_SECONDS if self._last_turn - self._last_settled < STUCK_AFTER_SECONDS else STUCK_SECONDS

    def _record(self, last_received_us: int, settled: Settled) -> None:
        sink, connection = self._sink, self._connection
        unspooled, unspooled_dead_lettered = sink.take_left()
        turn = Turn(
            received=self._received,
            redelivered=self._redelivered,
            resumed=self._resumed,
            delivered=settled.delivered,
            dead_lettered=settled.dead_lettered,
            spooled=settled.spooled,
            unspooled=unspooled,
            unspooled_dead_lettered=unspooled_dead_lettered,
            in_flight=len(self._in_flight),
            in_flight_bytes=self._in_flight.payload_bytes,
            in_doubt=len(self._in_flight) + sink.in_doubt,
            last_received_us=last_received_us,
        )
        received = (connection.number, connection.sequence) if connection is not None else None
        self._accounting.record(turn, received, settled.last, sink.level.first)
        if self._redelivery.candidates:
            self._redelivery.expire(newer=self._received > self._redelivered, idle=not len(self._in_flight))
        self._received = self._redelivered = self._resumed = 0

    # -- the session's side ------------------------------------------------------------------------------------
    def _opened(self, session_present: bool) -> None:
        """Raises SettingsError when the state directory can't be written."""
        session_lost = not session_present and self._state.last_connection is not None
        connection = Connection(self._state.next_connection(), self._sink)
        self._accounting.opened(connection.number, session_lost=session_lost)
        self._redelivery.opened(connection.number, resumed=session_present, books=self._accounting.recovered)
        self._connection = connection
        log.info("connected", connection=connection.number, session_present=session_present, protocol=self._session.protocol)
        if session_lost:
            log.warning(
                "session_lost",
                hint="the broker no longer had this client's session; messages it would have kept are gone",
                setting="IOT_INGEST_CLIENT_ID",
            )

    def _closed(self) -> None:
        if self._connection is not None:
            self._accounting.closed(self._connection.number, self._connection.sequence)
            self._redelivery.closed()
        self._connection = None
