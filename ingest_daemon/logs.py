"""Structured logs: one JSON object per line on standard error, never a payload."""

import logging
import sys
import time

import structlog

REPEAT_SECONDS = 30.0


class Seldom(logging.Filter):
    """Lets lines of a kind (the first word) pass once in REPEAT_SECONDS: librdkafka says several times a second that Kafka is away."""

    def __init__(self) -> None:
        super().__init__()
        self._passed: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line passes."""
        kind = record.getMessage().partition(" ")[0]
        now = time.monotonic()
        if now - self._passed.get(kind, -REPEAT_SECONDS) < REPEAT_SECONDS:
            return False
        self._passed[kind] = now
        return True


def configure(level: str) -> None:
    """Set up structlog and route the standard library's loggers (librdkafka's lines) through it."""
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, structlog.processors.JSONRenderer()],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    librdkafka = logging.getLogger("ingest.librdkafka")
    librdkafka.setLevel(logging.WARNING)
    librdkafka.filters = [Seldom()]
