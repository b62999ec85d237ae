"""Debian's exporters beside the local Prometheus, where they are installed: what PostgreSQL and this machine say of themselves.

Which collectors there are differs between releases: each program is asked, and every one that is not named here is switched off. So the
number of series does not grow with tables, roles, queries or devices of the machine.
"""

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from iot_platform.local.install import which
from iot_platform.local.ports import LOOPBACK
from iot_platform.local.program import Program, base_environment

NAMES: Final = ("postgres_exporter", "node_exporter")
POSTGRES: Final = "prometheus-postgres-exporter"
NODE: Final = "prometheus-node-exporter"
POSTGRES_COLLECTORS: Final = (
    "database",
    "database_wraparound",
    "locks",
    "long_running_transactions",
    "replication_slot",
    "stat_bgwriter",
    "stat_checkpointer",
    "stat_database",
    "wal",
)
NODE_COLLECTORS: Final = (
    "cpu",
    "diskstats",
    "filesystem",
    "loadavg",
    "meminfo",
    "netdev",
    "pressure",
    "stat",
    "time",
    "timex",
    "uname",
    "vmstat",
)


def postgres_exporter(local_dir: Path, port: int, url: str) -> Program:
    """For one server, as the role of `url`; that database's tables are not looked at.

    Raises:
        FileNotFoundError: it is not installed.
    """
    command = _installed(POSTGRES)
    # Early ones (0.11) show by default what later ones have collectors for; these show by default what has free text in its labels.
    known = _collectors(command)
    default = ("--disable-default-metrics",) if "stat_database" in known else ()
    options = ("--disable-settings-metrics", *default, *_choice(known, POSTGRES_COLLECTORS))
    environment = base_environment(local_dir) | {"DATA_SOURCE_NAME": f"{url}?sslmode=disable&application_name=postgres-exporter"}
    listen = f"--web.listen-address={LOOPBACK}:{port}"
    return Program("postgres_exporter", (command, listen, "--log.level=warn", *options), local_dir, environment, stop_seconds=5)


def node_exporter(local_dir: Path, port: int) -> Program:
    """For this machine: disks, memory, pressure, clock.

    Raises:
        FileNotFoundError: it is not installed.
    """
    command = _installed(NODE)
    known = _collectors(command)
    wanted = [f"--collector.{name}" for name in NODE_COLLECTORS if name in known]
    options = ("--collector.disable-defaults", *wanted)
    listen = f"--web.listen-address={LOOPBACK}:{port}"
    environment = base_environment(local_dir)
    return Program("node_exporter", (command, listen, "--log.level=warn", *options), local_dir, environment, stop_seconds=5)


def _installed(name: str) -> str:
    command = which(name)
    if command is None:
        raise FileNotFoundError(name)
    return command


def _choice(known: Sequence[str], wanted: Sequence[str]) -> list[str]:
    return [f"--{'' if name in wanted else 'no-'}collector.{name}" for name in known]


def _collectors(command: str) -> list[str]:
    """Names of those that can be switched, by its help."""
    shown = subprocess.run([command, "--help"], check=False, capture_output=True, text=True)
    return re.findall(r"^ +--(?:\[no-\])?collector\.([a-z_]+)(?: |$)", shown.stdout + shown.stderr, re.M)
