"""Compares this host's clock with Kafka's. A wrong host clock makes receive times wrong."""

import time
from collections.abc import Callable
from typing import Any

import structlog
from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME

SAMPLE_SECONDS = 10.0
PROMPT_SECONDS = 2.0  # a report that takes longer says too little
WRONG_SECONDS = 60.0

log = structlog.get_logger("ingest.clock")


class ClockWatch:
    """Fed with one delivery report in SAMPLE_SECONDS, of a topic with LogAppendTime; one thread."""

    def __init__(self, on_offset: Callable[[float], None], wall: Callable[[], float] = time.time) -> None:
        """`on_offset` takes this clock minus Kafka's in seconds (`Metrics.clock_offset.set`)."""
        self._on_offset = on_offset
        self._wall = wall
        self._next = 0.0
        self.problem: str | None = None

    def due(self, monotonic: float) -> bool:
        """Whether to sample the next message."""
        if monotonic < self._next:
            return False
        self._next = monotonic + SAMPLE_SECONDS
        return True

    def compared(self, report: Callable[[Any, Any], None], monotonic: Callable[[], float]) -> Callable[[Any, Any], None]:
        """This delivery report of a message that is sent now, which also compares the clocks."""
        wall, begun = self._wall(), monotonic()

        def compare(error: Any, message: Any) -> None:
            report(error, message)
            kind, timestamp = message.timestamp()
            if error is None and kind == TIMESTAMP_LOG_APPEND_TIME and monotonic() - begun < PROMPT_SECONDS:
                self.sample(timestamp, wall)

        return compare

    def sample(self, kafka_timestamp_ms: int, sent_wall_time: float) -> None:
        """Kafka stamped a record at its own time somewhere between its sending and now: the least difference that explains that."""
        kafka = kafka_timestamp_ms / 1000
        early, late = sent_wall_time - kafka, self._wall() - kafka
        offset = max(early, 0.0) + min(late, 0.0)
        self._on_offset(offset)
        wrong = abs(offset) > WRONG_SECONDS
        if wrong and self.problem is None:
            log.warning("clock_differs", seconds=round(offset, 1), hint="receive times follow this host's clock; correct it or Kafka's")
        elif not wrong and self.problem is not None:
            log.info("clock_agrees", seconds=round(offset, 1))
        self.problem = f"this host's clock differs from Kafka's by {offset:+.0f} s" if wrong else None
