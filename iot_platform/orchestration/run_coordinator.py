"""Dagster's run queue with a way past it for drain shifts; deploy/dagster/dagster.yaml names the class."""

from dagster import DagsterRun, DagsterRunStatus, QueuedRunCoordinator

from iot_platform.orchestration.dagster_private import SubmitRunContext
from iot_platform.orchestration.shifts import SHARD_TAG


class ShiftRunCoordinator(QueuedRunCoordinator):
    """Runs wait in Dagster's queue (configured as for QueuedRunCoordinator); a drain shift starts at once, whatever runs and waits there.

    The sensor kafka_lag has at most two shifts of a shard at work, so they need no limit; for other runs they count among
    max_concurrent_runs.
    """

    def submit_run(self, context: SubmitRunContext) -> DagsterRun:
        """Start or enqueue the run; one that was submitted before is left alone. A shift that cannot be started fails, and the sensor
        requests the next one."""
        run = context.dagster_run
        if SHARD_TAG not in run.tags or run.status != DagsterRunStatus.NOT_STARTED:
            return super().submit_run(context)
        self._instance.launch_run(run.run_id, context.workspace)
        return self._instance.get_run_by_id(run.run_id) or run
