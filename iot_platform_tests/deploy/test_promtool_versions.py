"""The alert rules and their cases on Debian's Prometheus 2 and on Prometheus 3, which counts the samples of a range otherwise."""

import subprocess
from pathlib import Path

import pytest

from iot_platform_tests.support.deploy.promtool import debian, newest, promtool_cases
from iot_platform_tests.support.deploy.tools import installed

pytestmark = pytest.mark.deploy


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("install", "major"), [(debian, "2."), (newest, "3.")], ids=["debian", "newest"])
def test_the_cases_pass_on(install: object, major: str, tmp_path: Path) -> None:
    program = installed(install, tmp_path / "log")  # type: ignore[arg-type]
    said = subprocess.run([program, "--version"], check=True, capture_output=True, text=True)
    version = (said.stdout + said.stderr).split("version ")[1]
    assert version.startswith((major, "("))  # a build without its release's flags names none
    promtool_cases(program)
