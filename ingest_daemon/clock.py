"""Compares this host's clock with Kafka's: receive times are this host's, and say nothing if its clock is wrong."""

from collections.abc import Callable

import structlog

SAMPLE_SECONDS = 10.0
WRONG_SECONDS = 60.0

log = structlog.get_logger("ingest.clock")


class ClockWatch:
    """Fed with a delivery report now and then; one thread.

    Use: when `due(monotonic)` is true note the wall clock, produce one message, and hand both to `sample` in its delivery
    callback. Kafka stamps the record (LogAppendTime) between sending and report, so the true offset lies between the two; the
    sending time is used, which a slow Kafka makes look early: compare only messages reported within a few seconds.
    """

    def __init__(self, tell: Callable[[float], None]) -> None:
        """`tell` takes this clock minus Kafka's in seconds (`Metrics.clock_offset.set`)."""
        self._tell = tell
        self._next = 0.0
        self.problem: str | None = None

    def due(self, monotonic: float) -> bool:
        """Whether the next message should be sampled: at most one in SAMPLE_SECONDS."""
        if monotonic < self._next:
            return False
        self._next = monotonic + SAMPLE_SECONDS
        return True

    def sample(self, kafka_timestamp_ms: int, sent_wall_time: float) -> None:
        """The timestamp that the broker gave a record, and this host's clock (Unix seconds) when it was sent."""
        offset = sent_wall_time - kafka_timestamp_ms / 1000
        self._tell(offset)
        wrong = abs(offset) > WRONG_SECONDS
        if wrong and self.problem is None:
            log.warning("clock_differs", seconds=round(offset, 1), hint="receive times follow this host's clock; correct it or Kafka's")
        elif not wrong and self.problem is not None:
            log.info("clock_agrees", seconds=round(offset, 1))
        self.problem = f"this host's clock differs from Kafka's by {offset:+.0f} s" if wrong else None
