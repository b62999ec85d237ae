"""What a run pod's process prints: one JSON object a line, whoever logs."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from dagster import DagsterInstance
from dagster._core.definitions.reconstruct import ReconstructableJob
from dagster._grpc.types import ExecuteRunArgs

from ingest_daemon.log_sampling import BURST
from iot_platform_tests.support.children import talking_job
from iot_platform_tests.support.kubernetes.runs import run_job

pytestmark = pytest.mark.timeout(120)


def printed(done: "subprocess.CompletedProcess[str]") -> list[dict[str, Any]]:
    """Everything, which must be JSON objects on standard output."""
    assert done.stderr == ""
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert all(isinstance(line, dict) and {"event", "level", "logger", "timestamp"} <= line.keys() for line in lines), done.stdout
    return lines


def run(home: Path, arguments: list[str]) -> "subprocess.CompletedProcess[str]":
    """A run pod's command with other arguments."""
    (container,) = run_job("rke2")["spec"]["template"]["spec"]["containers"]
    python, *command = container["command"]
    assert python == "python"
    environment = {**os.environ, "DAGSTER_HOME": str(home)}
    environment.pop("PYTHONWARNINGS", None)
    return subprocess.run([sys.executable, *command, *arguments], env=environment, capture_output=True, text=True, check=False, cwd=home)


def test_a_run_prints_json_whoever_logs(tmp_path: Path) -> None:
    (tmp_path / "dagster.yaml").write_text("python_logs: {python_log_level: INFO}\ntelemetry: {enabled: false}\n", "ascii")
    with DagsterInstance.from_config(str(tmp_path)) as instance:
        job = ReconstructableJob.for_file(talking_job.__file__, "talking")
        made = instance.create_run_for_job(talking_job.talking, job_code_origin=job.get_python_origin())
        arguments = ExecuteRunArgs(job_origin=job.get_python_origin(), run_id=made.run_id, instance_ref=instance.get_ref())
        lines = printed(run(tmp_path, [*arguments.get_command_args()]))
        assert instance.get_run_by_id(made.run_id).status.value == "FAILURE"  # type: ignore[union-attr]
    said = {line["event"]: line for line in lines}
    assert said["two\nlines"] | {"run_id": made.run_id, "job_name": "talking", "step_key": "talk", "level": "info"} == said["two\nlines"]
    assert said["ours"]["figure"] == 7
    assert (said["fault_of_ours"]["text"], said["fault_of_ours"]["level"]) == ('a "quoted"\nvalue', "error")
    assert "by Dagster's logger" in said
    assert said["of a library: text"]["logger"] == "some.library"
    assert any("UserWarning: a warning" in event for event in said)
    (failed,) = [line for line in lines if line.get("event_type") == "STEP_FAILURE"]
    assert "ValueError: the op fails\non purpose" in failed["exception"]
    assert "Stack Trace" in failed["exception"]
    for event in ("two\nlines", "ours", "of a library: text"):
        assert sum(line["event"] == event for line in lines) == 1, event


def test_an_error_that_nobody_catches_is_one_object(tmp_path: Path) -> None:
    done = run(tmp_path, ["dagster-daemon-that-is-none"])
    assert done.returncode != 0
    (line,) = printed(done)
    assert line["level"] == "critical"
    assert "Traceback" in line["exception"]


SAYING = """
import logging
from iot_platform.orchestration import json_logs
json_logs.set_up()
from iot_platform.logs import get_logger
log = get_logger("iot_platform.talking")
log.debug("fine"); log.info("usual"); log.warning("odd")
logging.getLogger("some.library").warning("of a library")
for number in range(15):
    log.error("again", attempt=number)
log.error("another")
"""


@pytest.mark.parametrize(
    ("level", "said"),
    [("debug", {"fine", "usual", "odd", "of a library"}), ("info", {"usual", "odd", "of a library"}), ("error", set())],
)
def test_what_is_said_follows_the_level_and_repeated_errors_are_sampled(level: str, said: set[str]) -> None:
    environment = {**os.environ, "IOT_LOG_LEVEL": level}
    done = subprocess.run([sys.executable, "-c", SAYING], env=environment, capture_output=True, text=True, check=True)
    lines = printed(done)
    assert {line["event"] for line in lines} == said | {"again", "another"}
    assert sum(line["event"] == "again" for line in lines) == BURST
    assert [line["left_out"] for line in lines if "left_out" in line] == [{"again": 15 - BURST}]
