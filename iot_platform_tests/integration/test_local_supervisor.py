"""The supervisor: repeats are harmless, changes restart, deaths are told with the end of the log."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest

from iot_platform.local import leftovers
from iot_platform.local.errors import LocalStackError, NotReadyError
from iot_platform.local.program import Program, base_environment
from iot_platform.local.server import await_ready
from iot_platform.local.supervisor import Supervisor
from iot_platform_tests.support.waiting import eventually


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    made = Supervisor(tmp_path, die_with_parent=True)
    made.ensure_running()
    yield made
    made.shutdown()
    assert leftovers.find(tmp_path) == []


def _program(folder: Path, script: str, **environment: str) -> Program:
    return Program("worker", (sys.executable, "-c", script), folder, base_environment(folder) | environment)


def _run(supervisor: Supervisor, program: Program) -> int:
    def started() -> None:
        if "started" not in supervisor.log_file(program.name).read_text():
            raise NotReadyError("nothing in the log yet")

    supervisor.apply(program)
    await_ready(program.name, started, supervisor, lambda _: None, abort=Event(), seconds=30)
    return supervisor.state(program.name).pid


def test_repeating_changes_nothing_and_a_change_restarts(supervisor: Supervisor, tmp_path: Path) -> None:
    program = _program(tmp_path, "import time; print('started', flush=True); time.sleep(600)", SECRET="hush")
    pid = _run(supervisor, program)
    assert _run(supervisor, program) == pid
    assert _run(supervisor, replace(program, fingerprint="another")) != pid
    command = subprocess.run(["ps", "-o", "args=", "-p", str(supervisor.state("worker").pid)], check=True, capture_output=True, text=True)
    assert "hush" not in command.stdout
    assert (tmp_path / "run" / "worker.json").stat().st_mode & 0o777 == 0o600
    supervisor.remove("worker")
    assert supervisor.states() == {}


def test_a_program_that_dies_while_it_is_stopped_stays_down(supervisor: Supervisor, tmp_path: Path) -> None:
    program = _program(tmp_path, "import time; print('started', flush=True); time.sleep(600)")
    for _ in range(3):
        os.kill(_run(supervisor, program), signal.SIGKILL)
        supervisor.stop("worker")
        assert supervisor.state("worker").pid == 0
        assert supervisor.state("worker").at_rest


def test_stopping_without_a_supervisor_is_harmless(tmp_path: Path) -> None:
    idle = Supervisor(tmp_path)
    idle.stop("kafka", "simulator")
    idle.shutdown()
    assert not idle.alive()


def test_dying_program_is_named_with_the_end_of_its_log(supervisor: Supervisor, tmp_path: Path) -> None:
    def never() -> None:
        raise NotReadyError("no answer")

    program = _program(tmp_path, "import sys; print('the disk is full'); sys.exit(3)")
    supervisor.apply(program)
    with pytest.raises(LocalStackError, match=r"worker does not stay up\. .*worker\.log:\n  the disk is full"):
        await_ready("worker", never, supervisor, lambda _: None, abort=Event(), seconds=30)


def test_ignored_signals_are_not_inherited(supervisor: Supervisor, tmp_path: Path) -> None:
    """Dagster takes its SIGTERM behaviour from SIGINT's, which a background job of a script inherits as ignored."""
    script = "import signal; print(f'started {signal.getsignal(signal.SIGINT)}', flush=True); signal.pause()"
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        _run(supervisor, _program(tmp_path, script))
    finally:
        signal.signal(signal.SIGINT, previous)
    eventually(lambda: "started <built-in function default_int_handler>\n" in supervisor.log_file("worker").read_text())


def test_leftovers_of_a_killed_supervisor_are_ended(tmp_path: Path) -> None:
    made = Supervisor(tmp_path)
    made.ensure_running()
    pid = _run(made, _program(tmp_path, "import time; print('started', flush=True); time.sleep(600)"))
    os.kill(int((tmp_path / "run" / "supervisord.pid").read_text()), signal.SIGKILL)
    made._process.wait()  # type: ignore[union-attr]
    assert pid in leftovers.find(tmp_path)
    assert leftovers.end(tmp_path) == 1
    assert leftovers.find(tmp_path) == []
