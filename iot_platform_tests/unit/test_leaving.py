"""A process ends with its exit code and all of its output, whatever its threads wait for."""

import subprocess
import sys

import pytest

PROGRAM = """
import atexit, sys, threading
from ingest_daemon.leaving import leave
atexit.register(print, "torn down")
stop = threading.Event()
for daemon in {daemons}:
    threading.Thread(target=stop.wait, daemon=daemon).start()
print("said")
print("complained", file=sys.stderr)
if False in {daemons}:
    threading.Timer(0.2, stop.set).start()
leave(3)
"""


@pytest.mark.parametrize(
    ("daemons", "output"),
    [
        pytest.param([], "said\ntorn down\n", id="alone"),
        pytest.param([True], "said\n", id="a daemon thread waits"),
        pytest.param([True, False], "said\ntorn down\n", id="a thread that is to be waited for"),
    ],
)
def test_the_exit_code_and_the_output_arrive(daemons: list[bool], output: str) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM.format(daemons=daemons)], check=False, capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stdout, done.stderr) == (3, output, "complained\n")
