"""The code of the release before, out of this clone's history, run by this virtual environment beside the code of this release."""

import io
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from iot_platform.settings import Settings, exports

ROOT: Final = Path(__file__).resolve().parents[3]
COMMIT: Final = "5f9c873ab26f5695ad3b6bc2292f11e37831ab14"
"""The last commit of main before the newest migrations (0018, 0019). A release moves it to the one before itself."""


@dataclass(frozen=True)
class PreviousRelease:
    """`folder`: its checkout."""

    folder: Path

    def environment(self) -> dict[str, str]:
        """What a program needs in its environment to be this release's."""
        return {"PYTHONPATH": str(self.folder)}

    def known(self, variables: Mapping[str, str]) -> dict[str, str]:
        """Without the settings that came after it, which it would refuse."""
        later = _settings_of(ROOT) - _settings_of(self.folder)
        return {name: value for name, value in variables.items() if name not in later}

    def python(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Python with these arguments and no settings but its defaults; standard output and error are one."""
        own = {**os.environ, **self.environment()}
        command = (sys.executable, *arguments)
        return subprocess.run(command, check=False, cwd=self.folder, env=own, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def start(self, settings: Settings, *arguments: str, environment: Mapping[str, str] | None = None) -> "subprocess.Popen[str]":
        """Python with these arguments, on the settings of a test; standard output and error are one."""
        own = {**os.environ, **self.known(exports(settings)), **(environment or {}), **self.environment()}
        command = (sys.executable, *arguments)
        return subprocess.Popen(command, cwd=self.folder, env=own, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def run(self, settings: Settings, *arguments: str, seconds: float = 120) -> str:
        """The same, until it ends, which must be a success; what it printed."""
        with self.start(settings, *arguments) as process:
            output, _ = process.communicate(timeout=seconds)
        assert process.returncode == 0, output
        return output

    def iot(self, settings: Settings, *arguments: str) -> str:
        """Its command `iot`."""
        return self.run(settings, "-m", "iot_platform.cli.main", *arguments)


@pytest.fixture(scope="session")
def previous_release(tmp_path_factory: pytest.TempPathFactory) -> PreviousRelease:
    """Skips where this is no clone, or a shallow one that does not reach back so far."""
    archive = subprocess.run(["git", "-C", str(ROOT), "archive", "--format=tar", COMMIT], check=False, capture_output=True)
    if archive.returncode != 0:
        pytest.skip(f"not tested beside the release before: {ROOT} has no commit {COMMIT[:7]} (shallow: git fetch --unshallow)")
    folder = tmp_path_factory.mktemp("previous-release")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
        tar.extractall(folder, filter="data")
    return PreviousRelease(folder)


def _settings_of(checkout: Path) -> set[str]:
    return set(re.findall(r"^#?(IOT_\w+)=", (checkout / ".env.example").read_text("utf-8"), re.MULTILINE))
