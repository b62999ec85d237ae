"""Brings lines to InfluxDB: again and again until they are there, or refused one by one."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from iot_platform.influx.errors import InfluxRefusedError, InfluxUnavailableError
from iot_platform.influx.lines import requests

FIRST_PAUSE_SECONDS: Final = 0.2
LONGEST_PAUSE_SECONDS: Final = 30.0


class Writes(Protocol):
    """What takes requests: see client.InfluxClient.write."""

    def write(self, body: bytes) -> None:
        """Raises InfluxError."""


@dataclass(slots=True)
class Delivered:
    """What became of lines: `refused` are positions with the server's words."""

    refused: list[tuple[int, str]] = field(default_factory=list)


class Delivery:
    """Sends with back-off. `until`: a moment (time.monotonic) after which it gives up, so that a run ends in time; the next one goes on."""

    def __init__(
        self,
        client: Writes,
        *,
        stop: threading.Event | None = None,
        until: float = float("inf"),
        on_retry: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._client = client
        self._stop = stop or threading.Event()
        self.until = until
        self._on_retry = on_retry
        self.retries = 0

    def send(self, lines: Sequence[str]) -> Delivered:
        """In as many requests as their size wants. When it returns, each line is there (204) or refused by itself: what `dropped=` in an
        answer says is wrong too often to be believed, so a refused request goes out again in halves. Repeating is harmless.

        Raises:
            InfluxConfigError: see there.
            InfluxUnavailableError: stopped, or `until` has come. Any of the lines may be there.
        """
        found = Delivered()
        waiting = [(part.start, part.stop) for part in reversed(requests(lines))]
        while waiting:
            first, last = waiting.pop()
            try:
                self.persist(lines[first:last])
            except InfluxRefusedError as error:
                if last - first == 1:
                    found.refused.append((first, str(error)))
                    continue
                middle = (first + last) // 2
                waiting += [(middle, last), (first, middle)]  # the first half first: the order stays
        return found

    def persist(self, lines: Sequence[str]) -> None:
        """One request, until it is answered."""
        body = "\n".join(lines).encode()
        self.repeat(lambda: self._client.write(body))

    def repeat(self, call: Callable[[], None]) -> None:
        """Until it does not raise InfluxUnavailableError any more."""
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                return call()
            except InfluxUnavailableError as error:
                self.retries += 1
                self._on_retry(str(error))
                if time.monotonic() + pause >= self.until or self._stop.wait(pause):
                    raise
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
