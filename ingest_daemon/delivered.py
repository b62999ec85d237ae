"""Where messages went, for the log at level debug: which sequences of a connection are at which offsets of a Kafka partition.

With it a line of the drain's log (run, batch, partition, offsets) leads back to the MQTT connection, and the other way round.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import structlog

from ingest_daemon.inflight import Pending

TOLD_SECONDS: Final = 1.0

log = structlog.get_logger("ingest.kafka")


@dataclass
class _Span:
    messages: int
    first_offset: int
    last_offset: int
    first_sequence: int
    last_sequence: int

    def add(self, offset: int, sequence: int) -> None:
        self.messages += 1
        self.first_offset, self.last_offset = min(self.first_offset, offset), max(self.last_offset, offset)
        self.first_sequence, self.last_sequence = min(self.first_sequence, sequence), max(self.last_sequence, sequence)


class Delivered:
    """Sums delivery reports up; one thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._told_at = clock()
        self._spans: dict[tuple[int, int], _Span] = {}  # connection and partition

    def watched(self, report: Callable[[Any, Any], None], pending: Pending) -> Callable[[Any, Any], None]:
        """This delivery report, which also notes where the message is."""

        def note(error: Any, message: Any) -> None:
            report(error, message)
            if error is None:
                self._note(pending.connection.number, pending.sequence, message.partition(), message.offset())

        return note

    def _note(self, connection: int, sequence: int, partition: int, offset: int) -> None:
        span = self._spans.get((connection, partition))
        if span is None:
            self._spans[connection, partition] = _Span(1, offset, offset, sequence, sequence)
        else:
            span.add(offset, sequence)

    def tell(self) -> None:
        """Write a line for each connection and partition, once in TOLD_SECONDS; call once per turn."""
        now = self._clock()
        if not self._spans or now - self._told_at < TOLD_SECONDS:
            return
        self._told_at = now
        for (connection, partition), span in sorted(self._spans.items()):
            log.debug("delivered", connection=connection, partition=partition, **vars(span))
        self._spans = {}
