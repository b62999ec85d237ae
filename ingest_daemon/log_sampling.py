"""Repeated warnings and errors, sampled: the first of a kind are written, the rest are counted, and the count is told."""

import re
import threading
import time
from collections.abc import Callable, MutableMapping
from typing import Any, Final

import structlog

BURST: Final = 10
WINDOW_SECONDS: Final = 60.0
"""So many lines of a kind pass in so long a time."""
KINDS: Final = 1000
SAMPLED: Final = frozenset({"warning", "error", "critical"})
_VARYING: Final = re.compile(r"[0-9a-fA-F-]{8,}|\d+")


class Sampler:
    """A processor of structlog's. Lines are of one kind that differ in nothing but numbers, and ids that look like numbers. The next line
    that passes, of whatever kind, tells in `left_out` how many did not: event → lines. For any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._kinds: dict[tuple[object, ...], tuple[float, int]] = {}  # kind → when its window began, and lines since
        self._left_out: dict[str, int] = {}

    def __call__(self, _logger: object, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """Raises structlog.DropEvent for a line that is left out."""
        with self._lock:
            if event.get("level", method) in SAMPLED and not self._passes(event):
                name = str(event.get("event"))
                self._left_out[name] = self._left_out.get(name, 0) + 1
                raise structlog.DropEvent
            if self._left_out:
                event["left_out"], self._left_out = self._left_out, {}
        return event

    def _passes(self, event: MutableMapping[str, Any]) -> bool:
        kind = tuple(
            (name, _VARYING.sub("#", value)) for name, value in sorted(event.items()) if isinstance(value, str) and name != "timestamp"
        )
        now = self._clock()
        began, lines = self._kinds.pop(kind, (now, 0))
        if now - began >= WINDOW_SECONDS:
            began, lines = now, 0
        self._kinds[kind] = began, lines + 1  # the newest last: the first is the one to forget
        if len(self._kinds) > KINDS:
            del self._kinds[next(iter(self._kinds))]
        return lines < BURST
