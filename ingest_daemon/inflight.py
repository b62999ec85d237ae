"""Messages between the MQTT broker and Kafka, in arrival order: which of them may be acknowledged now."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any


class State(IntEnum):
    """Where a message stands; from DELIVERED on it is safe in Kafka."""

    IN_FLIGHT = 0
    DELIVERED = 1
    DEAD_LETTERED = 2


class Connection:
    """One MQTT connection: the number that sets it apart for ever, and how many messages it has brought."""

    __slots__ = ("number", "on_failure", "sequence")

    def __init__(self, number: int, on_failure: Callable[["Pending", Any], None]) -> None:
        self.number = number
        self.sequence = 0
        self.on_failure = on_failure


class Pending:
    """One received message until its acknowledgement; also its own Kafka delivery callback (one object per message)."""

    __slots__ = ("connection", "header", "key", "packet_id", "sequence", "state", "value")

    def __init__(  # noqa: PLR0917  hot path: keywords cost
        self, connection: Connection, packet_id: int, sequence: int, key: bytes, value: bytes, header: bytes
    ) -> None:
        self.connection = connection
        self.packet_id = packet_id
        self.sequence = sequence
        self.key = key
        self.value = value
        self.header = header
        self.state = State.IN_FLIGHT

    def __call__(self, error: Any, _message: Any) -> None:
        """Kafka's delivery report. A failed one never settles the message: the sink decides what happens next."""
        if error is None:
            self.state = State.DELIVERED
        else:
            self.connection.on_failure(self, error)


@dataclass(frozen=True, slots=True)
class Settled:
    """What one `settle()` released; `packet_ids` are to be acknowledged, in this order."""

    packet_ids: list[int]
    delivered: int
    dead_lettered: int


class InFlight:
    """The window between broker and Kafka.

    Promises: `settle` hands out packet ids in arrival order (MQTT-4.6.0-2), each once, each only after its message and all
    before it are settled, and only those of the connection that is alive. Not thread-safe: one thread receives, reports and settles.
    """

    def __init__(self) -> None:
        self.queue: deque[Pending] = deque()
        self.payload_bytes = 0

    def __len__(self) -> int:
        return len(self.queue)

    def add(self, pending: Pending) -> None:
        """Take a message at its arrival."""
        self.queue.append(pending)
        self.payload_bytes += len(pending.value)

    def settle(self, alive: Connection | None) -> Settled:
        """Release the settled messages at the head; those of dead connections are counted but not acknowledged."""
        queue = self.queue
        packet_ids = []
        released = dead_lettered = released_bytes = 0
        while queue and (state := queue[0].state):
            pending = queue.popleft()
            released += 1
            released_bytes += len(pending.value)
            if state is State.DEAD_LETTERED:
                dead_lettered += 1
            if pending.connection is alive and pending.packet_id:
                packet_ids.append(pending.packet_id)
        self.payload_bytes -= released_bytes
        return Settled(packet_ids, released - dead_lettered, dead_lettered)
