"""The platform's own programs in the local stack: ingest daemon, Dagster's three processes, metrics exporter, console, device simulator."""

import os
import shutil
import sys
from pathlib import Path

from ingest_daemon.home import PACKAGES, directory
from iot_platform.files import DEPLOY
from iot_platform.local.ports import LOOPBACK
from iot_platform.local.program import Program, base_environment, newest_change
from iot_platform.local.supervisor import socket_path
from iot_platform.orchestration.environment import dagster_environment
from iot_platform.settings import Settings

DAGSTER = ("dagster-daemon", "dagster-webserver", "dagster-code")
NAMES = ("simulator", "ingest", "metrics", "console", *DAGSTER)
LOCATION = "iot_platform"


def ingest(settings: Settings) -> Program:
    """The ingest daemon; it reads the same settings files as we do."""
    fingerprint = newest_change(PACKAGES / "ingest_daemon") + _shown(settings)
    environment = base_environment(settings.local_dir) | {
        "IOT_INGEST_HTTP_PORT": str(settings.ingest_http_port),
        "IOT_INGEST_STATE_DIR": os.environ.get("IOT_INGEST_STATE_DIR", str(settings.local_dir / "ingest")),
    }
    return Program("ingest", (sys.executable, "-m", "ingest_daemon"), directory(), environment, stop_seconds=40, fingerprint=fingerprint)


def simulator(settings: Settings) -> Program:
    """A small fleet that publishes a few messages a second, for ever."""
    command = (
        sys.executable,
        "-m",
        "iot_platform.cli.main",
        "simulate",
        "--tenants",
        "2",
        "--projects",
        "3",
        "--devices",
        "10",
        "--rate",
        "5",
    )
    fingerprint = newest_change(PACKAGES / "iot_platform" / "simulator") + settings.mqtt_url.get_secret_value()
    environment = base_environment(settings.local_dir)
    return Program("simulator", (*command, "--duration", "0", "--seed", "1"), directory(), environment, fingerprint=fingerprint)


def metrics(settings: Settings) -> Program:
    """The exporter of the platform's own metrics; audits every few minutes."""
    fingerprint = newest_change(PACKAGES / "iot_platform") + _shown(settings)
    command = (sys.executable, "-m", "iot_platform.cli.main", "metrics")
    environment = base_environment(settings.local_dir) | {"IOT_METRICS_PORT": str(settings.metrics_port)}
    return Program("metrics", command, directory(), environment, stop_seconds=5, fingerprint=fingerprint)


def console(settings: Settings) -> Program:
    """The console and its read API. Told to stop, it ends open streams and is gone within about 3 s."""
    fingerprint = newest_change(PACKAGES / "iot_platform") + _shown(settings)
    environment = base_environment(settings.local_dir) | {"IOT_CONSOLE_PORT": str(settings.console_port)}
    command = (sys.executable, "-m", "iot_platform.api")
    return Program("console", command, directory(), environment, stop_seconds=6, fingerprint=fingerprint)


def code_socket(settings: Settings) -> Path:
    """Where Dagster's code server listens."""
    return socket_path(settings.local_dir, "code.sock")


def write_dagster_home(settings: Settings) -> Path:
    """DAGSTER_HOME with our instance configuration and a workspace of the one code server."""
    home = settings.local_dir / "dagster"
    home.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(DEPLOY / "dagster" / "dagster.yaml", home / "dagster.yaml")
    workspace = f"load_from:\n  - grpc_server:\n      socket: {code_socket(settings)}\n      location_name: {LOCATION}\n"
    (home / "workspace.yaml").write_text(workspace, "utf-8")
    return home


def dagster_code(settings: Settings) -> Program:
    """The code server; its run workers are its children.

    Told to stop, a drain commits and ends within about 3 s; the server itself would wait out the sensor's long poll.
    """
    socket = code_socket(settings)
    module = ("-m", "iot_platform.definitions", "--location-name", LOCATION)
    command = (sys.executable, "-m", "iot_platform.orchestration.code_server", *module, "--socket", str(socket))
    return _dagster("dagster-code", command, settings, newest_change(PACKAGES / "iot_platform"), stop_seconds=8)


def dagster_webserver(settings: Settings) -> Program:
    """The web UI."""
    command = (
        _tool("dagster-webserver"),
        "-h",
        LOOPBACK,
        "-p",
        str(settings.dagster_port),
        "-w",
        str(settings.local_dir / "dagster/workspace.yaml"),
    )
    return _dagster("dagster-webserver", command, settings)


def dagster_daemon(settings: Settings) -> Program:
    """Sensors, schedules, run queue and run monitoring."""
    command = (_tool("dagster-daemon"), "run", "-w", str(settings.local_dir / "dagster/workspace.yaml"))
    # A sensor that waits for messages holds up an orderly stop; what a killed daemon left half done, the next one resumes.
    return _dagster("dagster-daemon", command, settings, stop_seconds=5)


def _dagster(name: str, command: tuple[str, ...], settings: Settings, fingerprint: str = "", stop_seconds: int = 20) -> Program:
    environment = base_environment(settings.local_dir) | dagster_environment(settings)
    instance = (DEPLOY / "dagster" / "dagster.yaml").read_text("utf-8")
    return Program(
        name, command, directory(), environment, stop_seconds=stop_seconds, fingerprint=fingerprint + instance + _shown(settings)
    )


def _shown(settings: Settings) -> str:
    """All settings with their secrets: what a change of `.env` changes."""
    return repr({name: value.get_secret_value() if hasattr(value, "get_secret_value") else value for name, value in settings})


def _tool(name: str) -> str:
    return str(Path(sys.executable).parent / name)
