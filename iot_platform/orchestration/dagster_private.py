"""What we use of Dagster that it does not promise to keep (names that begin with `_`), in one place; the version is pinned, and
test_dagster_private.py says which behaviour we rely on."""

import logging
import sys
from typing import TYPE_CHECKING

from dagster._core.definitions.partitions.context import PartitionLoadingContext
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._core.launcher import LaunchRunContext
from dagster._core.run_coordinator.base import SubmitRunContext
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecord, AssetCheckExecutionRecordStatus
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    MAX_RETRIES_TAG,
    MAX_RUNTIME_SECONDS_TAG,
)

if TYPE_CHECKING:
    import structlog
    from dagster._grpc.server import DagsterApiServer

__all__ = [
    "ASSET_PARTITION_RANGE_END_TAG",
    "ASSET_PARTITION_RANGE_START_TAG",
    "MAX_RETRIES_TAG",
    "MAX_RUNTIME_SECONDS_TAG",
    "AssetCheckExecutionRecord",
    "AssetCheckExecutionRecordStatus",
    "DagsterExecutionInterruptedError",
    "LaunchRunContext",
    "PartitionLoadingContext",
    "SubmitRunContext",
]


def api_server() -> "type[DagsterApiServer]":
    """The class of Dagster's code server. Imported when asked for, as it costs half a second."""
    from dagster._grpc.server import DagsterApiServer

    return DagsterApiServer


def run_dagster_command() -> None:
    """The command `dagster` with the arguments of this process; does not return."""
    from dagster._cli import main

    main()  # type: ignore[no-untyped-call]


def log_by(formatter: "structlog.stdlib.ProcessorFormatter") -> None:
    """Lets what Dagster logs in this process, runs among it, go to standard output by that formatter. Before Dagster's commands begin:
    `--log-format json` takes it, too."""
    from dagster import _loggers
    from dagster._utils import log

    def console(name: str, level: str | int) -> logging.Logger:
        logger = logging.getLoggerClass()(name, level=level)
        handler = logging.StreamHandler(sys.stdout)
        handler.setFormatter(formatter)
        logger.addHandler(handler)
        return logger

    _loggers.create_console_logger = console  # type: ignore[attr-defined]  # of each run; no setting leads there
    log.get_structlog_json_formatter = lambda: formatter
    log.configure_loggers(formatter="json")
    for name in ("dagster", "dagit", "dagster-webserver"):
        logging.getLogger(name).propagate = False
