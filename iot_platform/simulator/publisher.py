"""Publishes a plan of messages at its pace over a few connections, and settles every one of them."""

import select
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from iot_platform.simulator.connection import Broker, Connection, Delivery
from iot_platform.simulator.message import Message

TURN_EVERY: Final = 32  # publishes between two looks at the sockets while there is no time to wait
MIN_WAIT_SECONDS: Final = 0.002  # a message may be this late: at high rates, several leave per round
MAX_WAIT_SECONDS: Final = 0.1  # how long a stop request or a reconnect may wait for the loop


@dataclass
class Summary:
    """What a simulation did. Every published message is acknowledged, refused by the broker or unacknowledged ("maybe stored")."""

    published: int = 0
    acknowledged: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    repeated: int = 0
    reconnects: int = 0
    kinds: dict[str, int] = field(default_factory=dict)
    unacknowledged: list[Delivery] = field(default_factory=list)
    seconds: float = 0.0


class Publisher:
    """Single-threaded: one caller runs `run`; `stop` may be set from a signal handler or another thread."""

    def __init__(self, broker: Broker, connections: int, client_id: str, on_settled: Callable[[Delivery], None] | None = None) -> None:
        self.summary = Summary()
        self._listener = on_settled
        self._connections = [Connection(broker, f"{client_id}-{number}", self._settle) for number in range(connections)]

    def run(
        self,
        messages: Iterable[Message],
        stop: threading.Event,
        until_seconds: float | None = None,
        settle_seconds: float = 30.0,
        tick: Callable[[Summary], None] | None = None,
    ) -> Summary:
        """Publish each message when it is due (at once if overdue), then wait for the missing PUBACKs.

        Ends with the plan, after `until_seconds`, or at `stop`; the wait for PUBACKs is bounded by `settle_seconds`.

        Raises:
            BrokerError: the broker could not be reached at the start. Later losses are repaired by reconnecting.
        """
        for connection in self._connections:
            connection.open()
        started = time.monotonic()
        give_up = started + until_seconds if until_seconds else float("inf")
        for message in messages:
            connection = self._connections[message.device % len(self._connections)]
            if not self._await_turn(connection, started + message.offset_us / 1e6, give_up, stop, tick):
                break
            connection.publish(message)
            self.summary.published += 1
            self.summary.kinds[message.kind] = self.summary.kinds.get(message.kind, 0) + 1
        self._finish(settle_seconds, tick)
        self.summary.seconds = time.monotonic() - started
        return self.summary

    def _await_turn(
        self, connection: Connection, due: float, give_up: float, stop: threading.Event, tick: Callable[[Summary], None] | None
    ) -> bool:
        """Wait until the message is due and its connection has room; False when the simulation is over before that."""
        if self.summary.published % TURN_EVERY == 0:
            self._turn(0)
            if tick:
                tick(self.summary)
        while not stop.is_set():
            now = time.monotonic()
            if now >= give_up:
                return False
            if now >= due and connection.ready:
                return True
            self._turn(min(MAX_WAIT_SECONDS, max(MIN_WAIT_SECONDS, min(due, give_up) - now)) if now < due else MAX_WAIT_SECONDS)
            if tick:
                tick(self.summary)
        return False

    def _turn(self, wait_seconds: float) -> None:
        """One round over all sockets."""
        sockets = {connection.client.socket(): connection for connection in self._connections}
        alive = [each for each in sockets if each is not None]
        writers = [each for each in alive if sockets[each].client.want_write()]
        if alive:
            readable = set(select.select(alive, writers, [], wait_seconds)[0])
        else:
            readable = set()
            time.sleep(min(wait_seconds, MAX_WAIT_SECONDS))  # nothing to listen to: every connection awaits its next attempt
        for connection in self._connections:
            connection.turn(connection.client.socket() in readable)

    def _settle(self, delivery: Delivery) -> None:
        if delivery.refused is None:
            self.summary.acknowledged += 1
        else:
            self.summary.refused[delivery.refused] = self.summary.refused.get(delivery.refused, 0) + 1
        self.summary.repeated += delivery.sends > 1
        if self._listener:
            self._listener(delivery)

    def _finish(self, settle_seconds: float, tick: Callable[[Summary], None] | None) -> None:
        give_up = time.monotonic() + settle_seconds
        while any(connection.in_flight for connection in self._connections) and time.monotonic() < give_up:
            self._turn(MAX_WAIT_SECONDS)
            if tick:
                tick(self.summary)
        for connection in self._connections:
            connection.close()
            self.summary.reconnects += connection.reconnects
            for delivery in connection.in_flight.values():
                self.summary.unacknowledged.append(delivery)
                if self._listener:
                    self._listener(delivery)
