"""The alert rules and their cases on Debian's Prometheus 2 and on Prometheus 3, which counts the samples of a range otherwise."""

from collections.abc import Callable
from pathlib import Path

import pytest

from iot_platform.local.install import Note
from iot_platform_tests.support.deploy.promtool import debian, newest, promtool_cases
from iot_platform_tests.support.deploy.tools import installed

pytestmark = pytest.mark.deploy


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("install", [debian, newest], ids=["debian", "newest"])
def test_the_cases_pass_on(install: Callable[[Path, Path, Note], Path], tmp_path: Path) -> None:
    program = installed(install, tmp_path / "log")
    promtool_cases(program)
