"""A real Prometheus with data of its own, which scrapes each second what a test names."""

import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from iot_platform.local import probes
from iot_platform.local.errors import NotReadyError
from iot_platform.local.ports import LOOPBACK, free_ports
from iot_platform_tests.support.oracles.grafana_prometheus import Prometheus
from iot_platform_tests.support.waiting import eventually

SCRAPE_SECONDS = 1


@contextmanager
def scraping(folder: Path, jobs: Mapping[str, Mapping[str, Mapping[str, str]]]) -> Iterator[Prometheus]:
    """Of each job the targets, host:port → labels. Skips the test where no Prometheus is installed."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("no prometheus here: .ci/run installs it")
    scraped: list[dict[str, Any]] = [
        {"job_name": job, "static_configs": [{"targets": [target], "labels": dict(labels)} for target, labels in targets.items()]}
        for job, targets in jobs.items()
    ]
    every = {"scrape_interval": f"{SCRAPE_SECONDS}s", "evaluation_interval": f"{SCRAPE_SECONDS}s"}
    config = folder / "prometheus.yml"
    config.write_text(yaml.safe_dump({"global": every, "scrape_configs": scraped}), "utf-8")
    (port,) = free_ports(1)
    url = f"http://{LOOPBACK}:{port}"
    command = [program, f"--config.file={config}", f"--storage.tsdb.path={folder}/prometheus", f"--web.listen-address={LOOPBACK}:{port}"]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        eventually(lambda: process.poll() is not None or _ready(url), 60, "Prometheus", pause=0.05)
        assert process.poll() is None, (folder / "prometheus.log").read_text()
        yield Prometheus(url, SCRAPE_SECONDS)
    finally:
        process.terminate()
        process.wait(30)


def _ready(url: str) -> bool:
    try:
        probes.http(f"{url}/-/ready")
    except NotReadyError:
        return False
    return True
