"""Dagster's code server (`dagster api grpc`), made to outlive a worker's death while Dagster's storage is away.

Dagster looks twice a second for dead run workers and reports them; if the storage does not answer just then, that thread ends for good.
Run monitoring then cancels the dead worker's run, the server sets the worker's multiprocessing Event, and that waits, holding the server's
lock, for a process that is gone: no run starts any more. (dagster 1.13.27, dagster/_grpc/server.py; the version is pinned.)
"""

import sys
import threading
from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING

from iot_platform.orchestration import json_logs
from iot_platform.orchestration.dagster_private import api_server, run_dagster_command

if TYPE_CHECKING:
    from dagster._grpc.server import DagsterApiServer

Check = Callable[["DagsterApiServer"], None]


def guarded(check: Check) -> Check:
    """The look for dead workers: one that fails is made again at the next tick, and cancelling a dead worker's run waits for nobody."""

    failing = False

    def look(server: "DagsterApiServer") -> None:
        nonlocal failing
        with server._execution_lock:
            for run_id, (process, _) in server._executions.items():
                if not process.is_alive():
                    server._termination_events[run_id] = threading.Event()  # type: ignore[assignment]
        try:
            check(server)
            failing = False
        except Exception as error:  # the storage is away: whatever it raises
            if not failing:
                server._logger.warning("a dead run worker could not be reported yet: %s", str(error).split("\n", 1)[0])
            failing = True

    return look


def main() -> None:
    """`dagster api grpc` with the guard; arguments as there. With `--log-format json` all of its logs are JSON (json_logs)."""
    if ("--log-format", "json") in pairwise(sys.argv):
        json_logs.set_up()
    server = api_server()
    server._check_for_orphaned_runs = guarded(server._check_for_orphaned_runs)  # type: ignore[assignment,method-assign]
    sys.argv = ["dagster", "api", "grpc", *sys.argv[1:]]
    run_dagster_command()


if __name__ == "__main__":
    main()
