"""Sends in the background, in order: while InfluxDB answers, the caller reads and makes the next lines."""

import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from iot_platform.influx.delivery import Delivered, Delivery, Writes

MOST_PARCELS: Final = 2
"""One is being sent and one is ready: more gain nothing and take memory."""
LOOK_SECONDS: Final = 0.2
"""How often who waits looks whether to stop."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """What goes out together: `before` (deletions), then lines. `done` gets what became of the lines."""

    lines: Sequence[str]
    done: Callable[[Delivered], None]
    before: Sequence[Callable[[], None]] = ()


class Sender:
    """A thread that sends parcels one after the other. `done` is called in the caller's thread, in the order in which parcels were put;
    what follows one that failed is not sent."""

    def __init__(
        self,
        client: Writes,
        *,
        until: float = float("inf"),
        stopped: Callable[[], bool] = lambda: False,
        on_retry: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`until`: see Delivery. `stopped`: whether to give up when something has to be repeated. `on_retry` gets the server's words, in
        the caller's thread."""
        self._stopped = stopped
        self._on_retry = on_retry
        self._impatient = threading.Event()
        self._todo: queue.SimpleQueue[Parcel | None] = queue.SimpleQueue()
        self._events: queue.SimpleQueue[str | Delivered | Exception] = queue.SimpleQueue()
        self._delivery = Delivery(client, stop=self._impatient, until=until, on_retry=self._repeated)
        self._under_way: deque[Parcel] = deque()
        self._thread: threading.Thread | None = None

    def put(self, parcel: Parcel) -> None:
        """Send it when all before it are there. Blocks while as many as MOST_PARCELS are under way.

        Raises:
            InfluxConfigError, InfluxUnavailableError: of this parcel or one before it; nothing more is under way, any line may be there.
        """
        while len(self._under_way) >= MOST_PARCELS:
            self._take()
        if self._thread is None:
            self._impatient.clear()
            self._thread = threading.Thread(target=self._send_all, name="influx sender", daemon=True)
            self._thread.start()
        self._under_way.append(parcel)
        self._todo.put(parcel)

    def flush(self) -> None:
        """Until nothing is under way. Raises as put."""
        while self._under_way:
            self._take()

    def call(self, what: Callable[[], None]) -> None:
        """Do something else over the same connection, behind all that is under way, and wait for its end. Raises as put, and what it raises
        but InfluxUnavailableError."""
        self.put(Parcel((), lambda _: None, (what,)))
        self.flush()

    def close(self) -> None:
        """Send nothing more, and wait until the request that is under way has ended."""
        self._impatient.set()
        self._end()

    def _take(self) -> None:
        """Wait for what becomes of the parcel that is sent now."""
        while True:
            if self._stopped():
                self._impatient.set()
            try:
                event = self._events.get(timeout=LOOK_SECONDS)
            except queue.Empty:
                continue
            if isinstance(event, str):
                self._on_retry(event)
                continue
            if isinstance(event, Exception):
                self._end()
                raise event
            self._under_way.popleft().done(event)
            return

    def _end(self) -> None:
        with suppress(queue.Empty):
            while True:
                self._todo.get_nowait()
        if self._thread is not None:
            self._todo.put(None)
            self._thread.join()
        self._thread = None
        self._under_way.clear()
        self._todo, self._events = queue.SimpleQueue(), queue.SimpleQueue()

    def _repeated(self, text: str) -> None:
        self._events.put(text)

    def _send_all(self) -> None:
        todo, events = self._todo, self._events
        while (parcel := todo.get()) is not None:
            try:
                for call in parcel.before:
                    self._delivery.repeat(call)
                events.put(self._delivery.send(parcel.lines))
            except Exception as error:  # handed to the caller's thread, which raises it
                events.put(error)
                return
