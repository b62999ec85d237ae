"""Messages between the MQTT broker and Kafka, in arrival order: which of them may be acknowledged now."""

from collections import deque
from collections.abc import Callable
from enum import IntEnum
from typing import Any, NamedTuple, Protocol


class State(IntEnum):
    """Whether a message may be acknowledged; from DELIVERED on it is safe."""

    IN_FLIGHT = 0
    DELIVERED = 1
    DEAD_LETTERED = 2
    SPOOLED = 3
    PROBED = 4  # no message: see `ingest_daemon.probe`


class Place(IntEnum):
    """Who works on a message that is not in Kafka yet."""

    KAFKA = 0  # librdkafka has it and will report
    NOWHERE = 1  # it has to be produced (again)
    REFUSED = 2  # `Refused` finds it a place


IN_FLIGHT, DELIVERED, IN_KAFKA = State.IN_FLIGHT, State.DELIVERED, Place.KAFKA  # looked up for each message: an Enum costs 0.1 µs


class Owner(Protocol):
    """Decides what becomes of messages."""

    def failed(self, pending: "Pending", error: Any) -> None:
        """Kafka's delivery report has an error."""

    def arrived(self, pending: "Pending", state: State) -> None:
        """A message that has, or is getting, an entry in the spool reached Kafka's topic or the dead-letter topic."""


class Connection:
    """One MQTT connection: the number that sets it apart for ever, and how many messages it has brought."""

    __slots__ = ("number", "owner", "sequence")

    def __init__(self, number: int, owner: Owner) -> None:
        self.number = number
        self.sequence = 0
        self.owner = owner


class Pending:
    """One message until Kafka has it; also its own Kafka delivery callback (one object per message).

    `entry` is its id in the spool, 0 while it has none. `packet_id` is what acknowledges it: see `transport.BY_PUBREC`.
    """

    __slots__ = ("connection", "entry", "header", "key", "packet_id", "place", "sequence", "state", "value")

    def __init__(  # noqa: PLR0917  hot path: keywords cost
        self, connection: Connection, packet_id: int, sequence: int, key: bytes, value: bytes, header: bytes
    ) -> None:
        self.connection = connection
        self.packet_id = packet_id
        self.sequence = sequence
        self.key = key
        self.value = value
        self.header = header
        self.state = IN_FLIGHT
        self.place = IN_KAFKA
        self.entry = 0

    def __call__(self, error: Any, _message: Any) -> None:
        """Kafka's delivery report. A failed one never settles the message: the owner decides what happens next."""
        if error is not None:
            self.connection.owner.failed(self, error)
        elif self.entry:
            self.connection.owner.arrived(self, DELIVERED)
        else:
            self.state = DELIVERED

    @property
    def record_bytes(self) -> int:
        """Least size of its Kafka record."""
        return len(self.key) + len(self.header) + len(self.value)

    def arrive(self, state: State) -> None:
        """Kafka has it, in one topic or the other."""
        if self.entry:
            self.connection.owner.arrived(self, state)
        else:
            self.state = state


class Settled(NamedTuple):
    """What one `settle()` released; `packet_ids` are to be acknowledged, in this order."""

    packet_ids: list[int]
    delivered: int
    dead_lettered: int
    spooled: int
    last: dict[int, int]  # connection number → last sequence released


class InFlight:
    """The window between broker and Kafka.

    Promises: `settle` hands out packet ids in arrival order (MQTT-4.6.0-2), each once, each only after its message and all
    before it are settled, and only those of the connection that is alive. Not thread-safe: one thread receives, reports and settles.
    """

    def __init__(self) -> None:
        self.queue: deque[Pending] = deque()
        self.payload_bytes = 0
        self.released = 0
        self.probes = 0
        """How many are in the queue, but no messages."""

    def __len__(self) -> int:
        return len(self.queue) - self.probes

    def add(self, pending: Pending) -> None:
        """Take a message at its arrival."""
        self.queue.append(pending)
        self.payload_bytes += len(pending.value)

    def add_probe(self, connection: Connection, packet_id: int, topic: bytes, payload: bytes) -> None:
        """Take a probe at its arrival: acknowledged in its turn, and no message to any counter."""
        probe = Pending(connection, packet_id, connection.sequence, topic, payload, b"")
        probe.state = State.PROBED
        self.add(probe)
        self.probes += 1

    def unsettled(self) -> list[Pending]:
        """Those that may not be acknowledged yet, in arrival order."""
        return [pending for pending in self.queue if not pending.state]

    def of(self, connection: Connection) -> dict[int, tuple[bytes, bytes]]:
        """Topic and payload of what the connection brought and what is not acknowledged yet, by packet id; QoS 0 is not in it."""
        return {one.packet_id: (one.key, one.value) for one in self.queue if one.connection is connection and one.packet_id}

    def settle(self, alive: Connection | None) -> Settled:
        """Release the settled messages at the head; those of dead connections are counted but not acknowledged."""
        queue, take = self.queue, self.queue.popleft
        packet_ids = []
        counts = [0, 0, 0, 0, 0]
        last: dict[int, int] = {}
        released_bytes = 0
        connection: Connection | None = None
        sequence = delivered = 0
        while queue and (state := queue[0].state) is not IN_FLIGHT:
            pending = take()
            if state is DELIVERED:
                delivered += 1
            else:
                counts[state] += 1
            released_bytes += len(pending.value)
            if pending.connection is not connection:
                if connection is not None:
                    last[connection.number] = sequence
                connection = pending.connection
            sequence = pending.sequence
            if pending.packet_id and connection is alive:
                packet_ids.append(pending.packet_id)
        if connection is not None:
            last[connection.number] = sequence
        counts[DELIVERED] += delivered
        self.payload_bytes -= released_bytes
        self.probes -= counts[State.PROBED]
        self.released += sum(counts) - counts[State.PROBED]
        return Settled(packet_ids, counts[State.DELIVERED], counts[State.DEAD_LETTERED], counts[State.SPOOLED], last)


class OldestAge:
    """How long the oldest unsettled message has waited, to the accuracy of how often it is asked: delivery reports say nothing of time."""

    def __init__(self, in_flight: InFlight, clock: Callable[[], float]) -> None:
        self._in_flight = in_flight
        self._clock = clock
        self._marks: deque[tuple[float, int]] = deque()  # when so many messages had been taken in all

    def seconds(self) -> float:
        """Its age; 0 if there is none."""
        marks, released = self._marks, self._in_flight.released
        taken, now = released + len(self._in_flight), self._clock()
        if not marks or marks[-1][1] < taken:
            marks.append((now, taken))
        while marks and marks[0][1] <= released:
            marks.popleft()
        return now - marks[0][0] if marks else 0.0

    def forget(self) -> None:
        """Measure from now on."""
        self._marks.clear()
