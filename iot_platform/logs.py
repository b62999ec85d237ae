"""Loggers of the platform: readable lines on standard error, so that they mix with no command's output."""

import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from iot_platform.visible import visible


def get_logger(name: str) -> Any:
    """A structlog logger; the first one sets structlog up for this process, unless the process has done so."""
    if not structlog.is_configured():
        structlog.configure(
            processors=[
                structlog.contextvars.merge_contextvars,
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.format_exc_info,
                _show,
                structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()),
            ],
            logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        )
    return structlog.get_logger(name)


def _show(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """What devices send is shown by `visible`: people read logs on terminals."""
    return {name: visible(value) if isinstance(value, str) else value for name, value in event.items()}
