"""Structured logs on standard error: one JSON object per line, or readable lines; never a payload."""

import logging
import sys
import time

import structlog

from ingest_daemon.log_sampling import Sampler

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


def renderer(form: str) -> structlog.typing.Processor:
    """What makes a line of an event; `form`: auto, json or text. auto: text where a person looks at standard error, else JSON."""
    if form == "text" or (form == "auto" and sys.stderr.isatty()):
        return structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)
    return structlog.processors.JSONRenderer(default=str)


def configure(level: str, form: str = "auto") -> None:
    """Set up structlog and route the standard library's loggers (librdkafka's lines) through it. `form`: as IOT_LOG_FORMAT."""
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared[:2],
            Sampler(),
            *shared[2:],
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer(form)],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    librdkafka = logging.getLogger("ingest.librdkafka")
    librdkafka.setLevel(logging.WARNING)
    librdkafka.filters = [Seldom()]
