"""Prometheus and Alertmanager of the local stack, where Debian's packages (or others) are installed: `MONITORING=1 make up`. What they
watch beside our own programs: exporters.py, jmx_exporter.py."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from iot_platform.files import DEPLOY
from iot_platform.local.errors import LocalStackError
from iot_platform.local.install import which
from iot_platform.local.ports import LOOPBACK
from iot_platform.local.program import Program, base_environment, newest_change

NAMES: Final = ("prometheus", "alertmanager")
RULES: Final = DEPLOY / "prometheus" / "rules"
KEPT: Final = ("--storage.tsdb.retention.time=15d", "--storage.tsdb.retention.size=2GB")
_ALERTMANAGERS: Final = ("prometheus-alertmanager", "alertmanager")


@dataclass(frozen=True)
class Monitoring:
    """Where both keep their files and listen. `targets`: what is scraped, host:port → its labels. `receiver`: of Alertmanager, without its
    name; none of them shows alerts only. `waits`: of Alertmanager's route, unless its defaults do. `rules`: folder of the rule files.
    `exporters`: others' exporters, job → host:port."""

    folder: Path
    prometheus_port: int
    alertmanager_port: int
    targets: Mapping[str, Mapping[str, str]]
    receiver: Mapping[str, Any]
    waits: Mapping[str, Any]
    scrape_seconds: int = 15
    rules: Path = RULES
    exporters: Mapping[str, str] = field(default_factory=dict)

    @property
    def prometheus_url(self) -> str:
        """Where Prometheus answers."""
        return f"http://{LOOPBACK}:{self.prometheus_port}"

    @property
    def alertmanager_url(self) -> str:
        """Where Alertmanager answers."""
        return f"http://{LOOPBACK}:{self.alertmanager_port}"

    def programs(self) -> Sequence[Program]:
        """Alertmanager and Prometheus, their configuration written.

        Raises:
            LocalStackError: one of them is not installed.
        """
        return [self.alertmanager(), self.prometheus()]

    def alertmanager(self) -> Program:
        """Alertmanager alone. Raises LocalStackError: as `programs`."""
        command = (
            require_installed()[1],
            f"--config.file={self.folder}/alertmanager.yml",
            f"--storage.path={self.folder}/alertmanager",
            "--cluster.listen-address=",
            f"--web.listen-address={LOOPBACK}:{self.alertmanager_port}",
        )
        return self._program("alertmanager", command, self._alertmanager(), "")

    def prometheus(self, name: str = "prometheus") -> Program:
        """Prometheus alone, under another name where there are several. Raises LocalStackError: as `programs`."""
        command = (
            require_installed()[0],
            f"--config.file={self.folder}/prometheus.yml",
            f"--storage.tsdb.path={self.folder}/prometheus",
            *KEPT,
            f"--web.listen-address={LOOPBACK}:{self.prometheus_port}",
        )
        return self._program(name, command, self._prometheus(), newest_change(self.rules))

    def _program(self, name: str, command: tuple[str, ...], configuration: Mapping[str, Any], version: str) -> Program:
        self.folder.mkdir(parents=True, exist_ok=True)
        file = "alertmanager.yml" if name == "alertmanager" else "prometheus.yml"
        (self.folder / file).write_text(yaml.safe_dump(configuration, sort_keys=False), "utf-8")
        environment = base_environment(self.folder.parent)
        return Program(name, command, self.folder, environment, fingerprint=repr(configuration) + version)

    def _prometheus(self) -> dict[str, Any]:
        own = {f"{LOOPBACK}:{self.prometheus_port}": "prometheus", f"{LOOPBACK}:{self.alertmanager_port}": "alertmanager"}
        own |= {target: job for job, target in self.exporters.items()}
        jobs = [{"job_name": job, "static_configs": [{"targets": [target]}]} for target, job in own.items()]
        parts = [{"targets": [target], "labels": dict(labels)} for target, labels in self.targets.items()]
        return {
            "global": {"scrape_interval": f"{self.scrape_seconds}s", "evaluation_interval": f"{self.scrape_seconds}s"},
            "rule_files": [f"{self.rules.resolve()}/*.yaml"],
            "alerting": {"alertmanagers": [{"static_configs": [{"targets": [f"{LOOPBACK}:{self.alertmanager_port}"]}]}]},
            "scrape_configs": [*jobs, {"job_name": "iot", "static_configs": parts}],
        }

    def _alertmanager(self) -> dict[str, Any]:
        route = {"receiver": "default", "group_by": ["area", "severity"], **self.waits}
        return {"route": route, "receivers": [{"name": "default", **self.receiver}]}


def require_installed() -> tuple[str, str]:
    """Paths of prometheus and alertmanager.

    Raises:
        LocalStackError: one is not there.
    """
    prometheus = which("prometheus")
    alertmanager = next((path for name in _ALERTMANAGERS if (path := which(name))), None)
    if prometheus is None or alertmanager is None:
        raise LocalStackError(
            "MONITORING=1 needs Prometheus and Alertmanager: apt-get install prometheus prometheus-alertmanager (and, so that only ours"
            " runs, systemctl disable --now prometheus prometheus-alertmanager)"
        )
    return prometheus, alertmanager


def local(local_dir: Path, ports: tuple[int, int], ingest_port: int, metrics_port: int, exporters: Mapping[str, str]) -> Monitoring:
    """Of the local stack: its alerts stand in both web pages and go nowhere."""
    targets = {f"{LOOPBACK}:{ingest_port}": {"part": "ingest"}, f"{LOOPBACK}:{metrics_port}": {"part": "platform"}}
    return Monitoring(local_dir / "monitoring", *ports, targets, {}, {}, exporters=exporters)
