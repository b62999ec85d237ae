"""Dagster's private API is used in one file, and the pinned version behaves as we rely on."""

import inspect
from pathlib import Path

from dagster import _loggers
from dagster._core.run_coordinator import DefaultRunCoordinator
from dagster._utils import log as dagster_log

from iot_platform.orchestration import dagster_private
from iot_platform.orchestration.run_coordinator import ShiftRunCoordinator

ROOT = Path(__file__).parents[2]


def test_one_file_uses_dagsters_private_api() -> None:
    """But for imports of types, which cost nothing when Dagster changes."""
    users = [
        path.name
        for path in (ROOT / "iot_platform").rglob("*.py")
        if any(line.startswith(("from dagster._", "import dagster._")) for line in path.read_text("utf-8").splitlines())
    ]
    assert users == ["dagster_private.py"]


def test_tags_mean_what_schedulers_and_backfills_write() -> None:
    """Values that are stored with runs: a new version must still read the runs of the former one."""
    assert dagster_private.MAX_RUNTIME_SECONDS_TAG == "dagster/max_runtime"
    assert dagster_private.MAX_RETRIES_TAG == "dagster/max_retries"
    assert dagster_private.ASSET_PARTITION_RANGE_START_TAG == "dagster/asset_partition_range_start"
    assert dagster_private.ASSET_PARTITION_RANGE_END_TAG == "dagster/asset_partition_range_end"


def test_dagster_starts_runs_as_our_coordinator_does() -> None:
    """A shift is started as Dagster's coordinator without a queue starts every run."""
    source = inspect.getsource(DefaultRunCoordinator.submit_run)
    assert "self._instance.launch_run(dagster_run.run_id, context.workspace)" in source
    assert (
        inspect.signature(ShiftRunCoordinator.submit_run).parameters.keys()
        == inspect.signature(DefaultRunCoordinator.submit_run).parameters.keys()
    )


def test_dagster_still_has_what_is_guarded() -> None:
    """What orchestration/code_server.py puts its guard around."""
    server = dagster_private.api_server()
    source = inspect.getsource(server)
    for text in ("self._check_for_orphaned_runs()", "with self._execution_lock:", "self._termination_events[run_id] = termination_event"):
        assert text in source
    assert list(inspect.signature(server._check_for_orphaned_runs).parameters) == ["self"]


def test_dagster_still_logs_by_what_is_replaced() -> None:
    """What `log_by` puts its own in the place of."""
    assert "return create_console_logger(\n" in inspect.getsource(_loggers)
    assert "= get_structlog_json_formatter()\n" in inspect.getsource(dagster_log.configure_loggers)
