"""Ticks that were missed while Dagster's daemon was down are made up for once, by Dagster's own scheduler on our own schedules."""

import logging
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.test_utils import InProcessTestWorkspaceLoadTarget, create_test_daemon_workspace_context, instance_for_test
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import IWorkspaceProcessContext
from dagster._scheduler.scheduler import launch_scheduled_runs

pytestmark = [
    pytest.mark.filterwarnings("ignore:The `__fields__` attribute is deprecated"),  # Dagster's own, with newer pydantic
    pytest.mark.filterwarnings("ignore::dagster.BetaWarning"),
    pytest.mark.filterwarnings("ignore:Property `ScheduleDefinition.environment_vars` is deprecated"),
]
DAILY = {"purge_dagster_history", "remove_old_rows", "compress_old_chunks"}
JOBS = DAILY | {"check_telemetry", "observe_ingestion", "roll_up_measurements", "evaluate_quality"}
"""One schedule each."""


@pytest.fixture
def workspace() -> Iterator[IWorkspaceProcessContext]:
    """Our code location, and an instance whose queue nobody empties."""
    queue = {"module": "dagster._core.run_coordinator", "class": "QueuedRunCoordinator"}
    target = InProcessTestWorkspaceLoadTarget(InProcessCodeLocationOrigin(LoadableTargetOrigin(module_name="iot_platform.definitions")))
    with (
        instance_for_test(overrides={"run_coordinator": queue}) as instance,
        create_test_daemon_workspace_context(target, instance) as made,
    ):
        yield made


def schedule(workspace: IWorkspaceProcessContext, now: datetime) -> Counter[str]:
    """What a daemon that starts at this time requests in its first iteration: runs by job."""
    before = {run.run_id for run in workspace.instance.get_runs()}
    errors = [error for error in launch_scheduled_runs(workspace, logging.getLogger("scheduler"), now, {}) if error]
    assert errors == []
    return Counter(run.job_name for run in workspace.instance.get_runs() if run.run_id not in before)


def test_missed_ticks_are_caught_up_once(workspace: IWorkspaceProcessContext) -> None:
    """Down for 5 days (5 ticks of the daily schedules, 2,400 of evaluate_quality): one run of each job, and none when it starts again."""
    began = datetime.now(UTC).replace(hour=12, minute=0, second=30, microsecond=0)
    assert not schedule(workspace, began), "nothing is due at the first start"
    back = began + timedelta(days=5)
    assert schedule(workspace, back) == Counter(JOBS)
    assert not schedule(workspace, back + timedelta(seconds=5)), "once"
    finished = {run.run_id for run in workspace.instance.get_runs() if run.job_name != "roll_up_measurements"}
    for run in workspace.instance.get_runs(dg.RunsFilter(run_ids=list(finished))):
        workspace.instance.report_run_canceled(run)
    again = schedule(workspace, back + timedelta(hours=1))
    assert again == Counter(JOBS - DAILY - {"roll_up_measurements"}), "rollups do not queue up behind a run that has not ended"
