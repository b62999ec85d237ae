"""The code server goes on after a run worker has died while Dagster's storage was away."""

import logging
import multiprocessing
import os
import signal
import threading
from types import SimpleNamespace

import pytest
from dagster._grpc.server import DagsterApiServer

from iot_platform.orchestration.code_server import guarded


def wait_for(event: "multiprocessing.synchronize.Event", waiting: "multiprocessing.synchronize.Event") -> None:
    waiting.set()
    event.wait()


def test_cancelling_a_dead_workers_run_waits_for_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """What Dagster would do: set the event of a process that died waiting for it, which never returns."""
    context = multiprocessing.get_context("spawn")
    event, waiting = context.Event(), context.Event()
    worker = context.Process(target=wait_for, args=(event, waiting))
    worker.start()
    assert waiting.wait(30)
    while not event._cond._sleeping_count.get_value():  # type: ignore[attr-defined]
        pass
    assert worker.pid
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    server = SimpleNamespace(
        _execution_lock=threading.Lock(),
        _executions={"run": (worker, None)},
        _termination_events={"run": event},
        _logger=logging.getLogger("code server"),
    )

    def storage_is_away(_server: DagsterApiServer) -> None:
        raise ConnectionError("no storage\ndetails")

    with caplog.at_level(logging.WARNING):
        guarded(storage_is_away)(server)  # type: ignore[arg-type]
    assert caplog.messages == ["a dead run worker could not be reported yet: no storage"]
    assert server._executions, "it must be reported once the storage is back"
    assert not server._execution_lock.locked()
    cancel = threading.Thread(target=server._termination_events["run"].set, daemon=True)
    cancel.start()
    cancel.join(10)
    assert not cancel.is_alive()
