"""`iot up` and `iot down` as a person runs them: everything local, everything the user's own, and what goes wrong."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg2
import pytest
from paho.mqtt import publish

from iot_platform.local import leftovers
from iot_platform.local.plan import make_plan
from iot_platform.local.ports import free_ports
from iot_platform.local.supervisor import Supervisor
from iot_platform.settings import Settings, exports
from iot_platform_tests.support.servers.stack import Ingest

Iot = Callable[..., "subprocess.CompletedProcess[str]"]
_SERVERS = ("MQTT", "KAFKA", "POSTGRES", "DAGSTER", "INGEST_HTTP", "METRICS", "CONSOLE")
_PORTS = tuple(f"IOT_{name}_PORT" for name in _SERVERS)


@pytest.fixture
def local_dir(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "local"
    yield folder
    Supervisor(folder).shutdown()
    leftovers.end(folder)


@pytest.fixture
def iot(local_dir: Path, tmp_path: Path) -> Iot:
    def run(*arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        environment = {**os.environ, "SIMULATOR": "0", **variables, "IOT_LOCAL_DIR": str(local_dir)}
        command = [sys.executable, "-m", "iot_platform.cli.main", *arguments]
        return subprocess.run(command, check=False, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=240)

    return run


def _await_rows(url: str, query: str, wanted: list[tuple[object, ...]], seconds: float = 60) -> None:
    connection = psycopg2.connect(url)
    connection.autocommit = True
    deadline = time.monotonic() + seconds
    try:
        with connection.cursor() as cursor:
            while True:
                cursor.execute(query)
                found = cursor.fetchall()
                if found == wanted:
                    return
                assert time.monotonic() < deadline, found
                time.sleep(0.2)
    finally:
        connection.close()


def test_up_makes_a_published_message_a_row_and_down_leaves_nothing(iot: Iot, local_dir: Path) -> None:
    ports = {name: str(port) for name, port in zip(_PORTS, free_ports(len(_PORTS)), strict=True)}
    up = iot("up", **ports)
    assert up.returncode == 0, up.stdout + up.stderr
    assert f"http://127.0.0.1:{ports['IOT_DAGSTER_PORT']}" in up.stdout
    running = {name: state.pid for name, state in Supervisor(local_dir).states().items()}
    own = {"ingest", "metrics", "console", "dagster-code", "dagster-daemon", "dagster-webserver"}
    assert set(running) == {"mosquitto", "kafka", "postgresql"} | own
    with urllib.request.urlopen(f"http://127.0.0.1:{ports['IOT_CONSOLE_PORT']}/readyz") as answer:
        assert answer.status == 200

    publish.single("mtic/msg/client/realtime/7/8/sensor", '{"temp": 25.5}', qos=1, hostname="127.0.0.1", port=int(ports["IOT_MQTT_PORT"]))
    fields = {name.removeprefix("IOT_").lower(): int(port) for name, port in ports.items()}
    plan = make_plan(Settings(local_dir=local_dir, **fields))  # type: ignore[arg-type]
    query = "SELECT tenant_id, project_id, device_id, metric, value FROM measurement_named"
    _await_rows(plan.settings.writer_url, query, [("7", "8", "sensor", "temp", 25.5)])

    again = iot("up", **ports)
    assert again.returncode == 0, again.stdout + again.stderr
    del running["dagster-code"]  # restarted if somebody edits the code meanwhile
    assert {name: state.pid for name, state in Supervisor(local_dir).states().items() if name in running} == running

    assert iot("down").returncode == 0
    assert leftovers.find(local_dir) == []
    assert (local_dir / "data" / "postgresql").exists()


def test_your_own_servers_are_used_and_none_starts(iot: Iot, local_dir: Path, settings: Settings, ingest: Ingest) -> None:
    own = exports(settings) | {"IOT_INGEST_CLIENT_ID": ingest.client_id}  # the fixture deletes that session afterwards
    up = iot("up", **own)
    assert up.returncode == 0, up.stdout + up.stderr
    assert set(Supervisor(local_dir).states()) == {"ingest", "metrics", "console"}
    assert iot("down", **own).returncode == 0
    assert leftovers.find(local_dir) == []


def test_unreachable_server_is_named_with_its_variable(iot: Iot, settings: Settings) -> None:
    nobody = free_ports(1)[0]
    up = iot("up", **exports(settings) | {"IOT_MQTT_URL": f"mqtt://127.0.0.1:{nobody}"})
    assert up.returncode == 1
    assert f"IOT_MQTT_URL: no connection to 127.0.0.1:{nobody}" in up.stderr


def test_taken_port_is_named_with_its_owner_and_variable(iot: Iot, settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        up = iot("up", **exports(settings) | {"IOT_INGEST_HTTP_PORT": str(port)})
    assert up.returncode == 1
    assert f"port {port} for ingest is already used by" in up.stderr
    assert f"(pid {os.getpid()})" in up.stderr
    assert "IOT_INGEST_HTTP_PORT=<port>" in up.stderr


def test_invalid_setting_is_named(iot: Iot) -> None:
    up = iot("up", IOT_KAFKA_PARTITIONS="none")
    assert up.returncode == 2
    assert "IOT_KAFKA_PARTITIONS: " in up.stderr


@pytest.mark.parametrize("command", [["iot_platform.cli.main", "env"], ["ingest_daemon", "--check"]])
def test_a_misspelt_name_ends_the_process_with_2(tmp_path: Path, command: list[str]) -> None:
    environment = {"IOT_KAFKA_BOOTSTRAP_SERVER": "kafka:9092", "IOT_LOCAL_DIR": str(tmp_path), "PATH": ""}
    done = subprocess.run([sys.executable, "-m", *command], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "IOT_KAFKA_BOOTSTRAP_SERVER is not a setting; did you mean IOT_KAFKA_BOOTSTRAP_SERVERS?" in done.stderr
    assert "Traceback" not in done.stderr
