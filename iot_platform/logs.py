"""Loggers of the platform: one JSON object a line, or readable lines, on standard error, so that they mix with no command's output."""

import sys
from collections.abc import MutableMapping
from functools import cache
from typing import Any, Final

import structlog

from ingest_daemon.log_sampling import Sampler
from ingest_daemon.logs import renderer
from iot_platform.visible import visible, visible_json

_wanted: Final = {"form": "auto", "level": "info"}
LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}


class _Printer(structlog.PrintLogger):
    def __init__(self, name: str = "") -> None:
        super().__init__(sys.stderr)
        self.name = name


def get_logger(name: str) -> Any:
    """A structlog logger; the first one sets structlog up for this process, unless the process has done so."""
    if not structlog.is_configured():
        structlog.configure(
            processors=[
                structlog.contextvars.merge_contextvars,
                structlog.processors.add_log_level,
                structlog.stdlib.add_logger_name,
                _drop_unwanted,
                Sampler(),
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.format_exc_info,
                _render,
            ],
            logger_factory=_Printer,
        )
    return structlog.get_logger(name)


def follow(form: str, level: str) -> None:
    """From now on lines are as IOT_LOG_FORMAT and IOT_LOG_LEVEL say; whoever reads the settings calls it."""
    _wanted.update(form=form, level=level)


def is_wanted(level: str) -> bool:
    """Whether lines of this level are written, for what is costly to say."""
    return LEVELS.get(level, 20) >= LEVELS[_wanted["level"]]


@cache
def _renderer(form: str) -> structlog.typing.Processor:
    return renderer(form)


def _drop_unwanted(_logger: object, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if not is_wanted(method):
        raise structlog.DropEvent
    return event


def _render(logger: Any, method: str, event: MutableMapping[str, Any]) -> Any:
    """What devices send is shown by `visible`: people read logs on terminals."""
    renders = _renderer(_wanted["form"])
    if isinstance(renders, structlog.processors.JSONRenderer):
        return visible_json(str(renders(logger, method, event)))
    return renders(logger, method, {name: visible(value) if isinstance(value, str) else value for name, value in event.items()})
