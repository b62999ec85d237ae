"""deploy/compose by Docker Compose 5: valid without a word, as by Debian's."""

from pathlib import Path

import pytest

from iot_platform_tests.contract.test_compose import COMBINATIONS, assert_silent
from iot_platform_tests.contract.test_compose import copy as copy  # noqa: PLC0414  a fixture
from iot_platform_tests.support.deploy import tools

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(1800)]  # the first time it is built


@pytest.mark.parametrize("combination", COMBINATIONS, ids=" ".join)
def test_compose_5_finds_it_valid_and_has_nothing_to_warn_of(copy: Path, combination: tuple[str, ...], tmp_path: Path) -> None:
    assert_silent(str(tools.installed(tools.compose, tmp_path / "install.log")), copy, combination)
