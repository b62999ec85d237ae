"""promtool of several versions, and the cases of deploy/prometheus/tests by one of them."""

import subprocess
from functools import partial
from pathlib import Path

from iot_platform.local.install import Note, cached, run_logged
from iot_platform_tests.support.deploy.tools import CHECKOUT, go_program

PROMETHEUS = CHECKOUT / "deploy" / "prometheus"

newest = partial(go_program, "github.com/prometheus/prometheus/cmd/promtool", "v0.316.0")
"""Prometheus 3.16, from its Go module: minutes of processor time the first time."""


def debian(cache_dir: Path, log: Path, note: Note) -> Path:
    """Of this Debian: 2.42 on 12, 2.53 on 13. Only unpacked: an installed package would start a server.

    Raises:
        LocalStackError: no such package, no network.
    """
    release = next(line for line in Path("/etc/os-release").read_text("utf-8").splitlines() if line.startswith("VERSION_ID="))
    number = release.partition("=")[2].strip('"')
    package = "prometheus" if number == "12" else "promtool"
    with cached(cache_dir / f"promtool-debian-{number}", note) as new:
        if new is not None:
            command = f"cd '{new}' && apt-get download {package} && dpkg-deb -x ./*.deb . && rm ./*.deb"
            run_logged(["sh", "-ec", command], log, note, what=f"unpacking {package}")
    return cache_dir / f"promtool-debian-{number}" / "usr" / "bin" / "promtool"


def promtool_cases(program: str | Path) -> None:
    """All rules are valid, and all cases pass. A duplicate rule leaves promtool with exit code 0."""
    rules, cases = (sorted(map(str, (PROMETHEUS / name).glob("*.yaml"))) for name in ("rules", "tests"))
    checked = subprocess.run([program, "check", "rules", *rules], check=False, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "FAILED" not in checked.stdout + checked.stderr
    done = subprocess.run([program, "test", "rules", *cases], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
