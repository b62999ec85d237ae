"""Dagster's programs with what they log as JSON, one object a line on standard output: what the containers of deploy/kubernetes run.

    python -m iot_platform.orchestration.json_logs dagster-daemon run --log-format json …

Dagster's own `--log-format json` covers its servers' loggers only: not what a run says, nor our modules, nor an error's traceback.
"""

import logging
import sys
import threading
from collections.abc import MutableMapping
from importlib.metadata import entry_points
from types import TracebackType
from typing import Any, Final

import structlog

from ingest_daemon.log_sampling import Sampler
from iot_platform.logs import LEVELS
from iot_platform.orchestration.dagster_private import log_by
from iot_platform.settings import get_settings

Event = MutableMapping[str, Any]
_OF_A_RUN: Final = ("run_id", "job_name", "step_key")
log = logging.getLogger(__name__)


def formatter() -> structlog.stdlib.ProcessorFormatter:
    """One JSON object: event, logger, level, timestamp (UTC), what the caller added; of a run its id, job_name, step_key, event_type."""
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_shared(),
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
    )


def set_up() -> None:
    """For this process, before Dagster sets its loggers up: our lines from IOT_LOG_LEVEL on, repeated ones sampled; those of libraries from
    warning on. Errors that nobody catches are logged, too.

    Raises:
        SettingsError: as every process of ours says it.
    """
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.filter_by_level,
            *_shared(),
            Sampler(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
    )
    made = formatter()
    log_by(made)
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(made)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    sys.excepthook = _uncaught
    threading.excepthook = lambda args: log.error("a thread ended by an error", exc_info=args[:3])  # type: ignore[arg-type]
    level = LEVELS[get_settings().log_level]
    logging.getLogger("iot_platform").setLevel(level)
    root.setLevel(max(level, logging.WARNING))


def main() -> None:
    """Run a program of Dagster's packages in this process, with the arguments that follow its name."""
    program, *arguments = sys.argv[1:]
    set_up()
    if program == "dagster-webserver":
        # It has no setting for its HTTP server's loggers: without handlers of their own they log by the root's.
        from uvicorn.config import LOGGING_CONFIG

        LOGGING_CONFIG["loggers"] = {}
    sys.argv = [program, *arguments]
    (entry,) = entry_points(group="console_scripts", name=program)
    entry.load()()


# -- private -------------------------------------------------------------------------------------------------
def _shared() -> list[structlog.typing.Processor]:
    """Of our records and of others'."""
    return [
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.stdlib.ExtraAdder(),
        _of_a_run,
    ]


def _of_a_run(_logger: object, _method: str, event: Event) -> Event:
    """What Dagster adds to a run's records, as fields that people look for."""
    about = event.pop("dagster_meta", None)
    happened = event.pop("dagster_event", None)
    if about is not None:
        event.update({name: about[name] for name in _OF_A_RUN if about[name] is not None})
        event["event"] = about["orig_message"]
    if happened is not None:
        event["event_type"] = happened.event_type_value
        if error := getattr(happened.event_specific_data, "error", None):
            event["exception"] = error.to_string()
    return event


def _uncaught(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    log.critical("ended by an error", exc_info=(kind, error, traceback))


if __name__ == "__main__":
    main()
