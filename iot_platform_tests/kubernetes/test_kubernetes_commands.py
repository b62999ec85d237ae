"""The containers' commands, run as processes of this machine on real servers: options exist, probes are answered, SIGTERM ends them in
time, and what they log is JSON."""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc
import pytest
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc

from iot_platform.local.ports import LOOPBACK, free_ports
from iot_platform.orchestration.environment import dagster_environment
from iot_platform.settings import Settings, exports
from iot_platform_tests.support.kubernetes.manifests import Object, containers, instance, one, templates
from iot_platform_tests.support.kubernetes.nodes import proportional_mib
from iot_platform_tests.support.kubernetes.runs import NOBODY
from iot_platform_tests.support.waiting import eventually

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(600)]
OVERLAY = "rke2"
PORTS = ("3000", "4000", "8000", "9108", "9109")
BIN = Path(sys.executable).parent
KEPT = (
    "IOT_INGEST_CLIENT_ID",
    "IOT_INGEST_SHARED_GROUP",
    "IOT_INGEST_HTTP_HOST",
    "IOT_INGEST_HTTP_PORT",
    "IOT_CONSOLE_HOST",
    "IOT_CONSOLE_PORT",
    "IOT_METRICS_HOST",
    "IOT_METRICS_PORT",
)


class Machine:
    """Stands for a node: the containers' ports, files and servers are others here."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._settings, self._folder = settings, folder
        self.ports = dict(zip(PORTS, map(str, free_ports(len(PORTS))), strict=True))
        home, storage = folder / "dagster", folder / "dagster-storage"
        for path in (home, storage):
            path.mkdir()
        (storage / "dagster.yaml").write_text(one(OVERLAY, "ConfigMap", "dagster-storage")["data"]["dagster.yaml"], "utf-8")
        kubeconfig = folder / "kubeconfig"
        kubeconfig.write_text(yaml.safe_dump(NOBODY), "utf-8")
        config = instance(OVERLAY)
        config["run_launcher"]["config"] |= {"load_incluster_config": False, "kubeconfig_file": str(kubeconfig)}
        (home / "dagster.yaml").write_text(yaml.safe_dump(config), "utf-8")
        workspace = one(OVERLAY, "ConfigMap", "dagster-instance")["data"]["workspace.yaml"]
        workspace = workspace.replace("dagster-code", LOOPBACK).replace("4000", self.ports["4000"])
        (home / "workspace.yaml").write_text(workspace, "utf-8")
        self._paths = {"/var/lib/dagster": str(home), "/etc/dagster": str(home), "/var/lib/iot-ingest": str(folder / "ingest")}

    def here(self, text: str) -> str:
        """An argument or a value, as it is on this machine."""
        for path, own in self._paths.items():
            text = text.replace(path, own)
        return self.ports.get(text, text)

    def command(self, words: list[str]) -> list[str]:
        """Of a container, with the programs of our virtual environment."""
        program, *rest = map(self.here, words)
        return [str(BIN / program), *rest]

    def environment(self, container: Object) -> dict[str, str]:
        """What the pod would have, but for servers, passwords and files."""
        found: dict[str, str] = {}
        for source in container["envFrom"]:
            if "configMapRef" in source:
                found |= one(OVERLAY, "ConfigMap", source["configMapRef"]["name"].rpartition("-")[0])["data"]
        for variable in container.get("env", []):
            found[variable["name"]] = variable.get("value", "iot-ingest-0")
        own = {name: value for name, value in found.items() if not name.startswith("IOT_") or name in KEPT}
        servers = {name: value for name, value in exports(self._settings).items() if name not in KEPT}
        state = {"IOT_INGEST_STATE_DIR": str(self._folder / "ingest")} if "IOT_INGEST_STATE_DIR" in found else {}
        storage = {"IOT_DAGSTER_STORAGE_URL": dagster_environment(self._settings)["IOT_DAGSTER_STORAGE_URL"]}
        all_ = servers | storage | state | own
        return {name: self.here(value) for name, value in all_.items()} | {"PATH": f"{BIN}:{os.environ['PATH']}"}

    def answers(self, probe: Object, container: Object) -> bool:
        """Asks once, as a kubelet does."""
        if "exec" in probe:
            command = self.command(probe["exec"]["command"])
            done = subprocess.run(
                command, env=self.environment(container), capture_output=True, check=False, timeout=probe["timeoutSeconds"]
            )
            return done.returncode == 0
        if "grpc" in probe:
            with grpc.insecure_channel(f"{LOOPBACK}:{self.ports[str(probe['grpc']['port'])]}") as channel:
                try:
                    asked = health_pb2.HealthCheckRequest(service=probe["grpc"]["service"])
                    answer = health_pb2_grpc.HealthStub(channel).Check(asked, timeout=probe["timeoutSeconds"])
                except grpc.RpcError:
                    return False
                return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
        port = next(port["containerPort"] for port in container["ports"] if port["name"] == probe["httpGet"]["port"])
        try:
            url = f"http://{LOOPBACK}:{self.ports[str(port)]}{probe['httpGet']['path']}"
            with urllib.request.urlopen(url, timeout=probe["timeoutSeconds"]) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    @contextmanager
    def running(self, name: str) -> Iterator[None]:
        """A workload's container, from its startup probe's success to its end by SIGTERM."""
        template = templates(OVERLAY)[name]
        (container,) = template["spec"]["containers"]
        log = self._folder / f"{name}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                self.command(container["command"]),
                env=self.environment(container),
                stdout=out,
                stderr=out,
                cwd=self._folder,
                start_new_session=True,
            )
        try:
            for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
                if probe := container.get(kind):
                    eventually(
                        lambda probe=probe: self.answers(probe, container),
                        150,
                        lambda: f"{name} {probe}\n{log.read_text()[-3000:]}",
                        pause=1,
                    )
            assert process.poll() is None
            yield
            used, limit = proportional_mib(process.pid), container["resources"]["limits"]["memory"]
            print(f"{name}: {used:.0f} MiB of {limit}")
            assert used < int(limit.removesuffix("Mi"))
            process.send_signal(signal.SIGTERM)
            code = process.wait(template["spec"]["terminationGracePeriodSeconds"])
            assert code in (0, -signal.SIGTERM), (name, code, log.read_text()[-3000:])
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        lines = [line for line in log.read_text("utf-8").splitlines() if line.strip()]
        assert [line for line in lines if not is_json(line)] == [], name


def is_json(line: str) -> bool:
    """Whether a line is one JSON object."""
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def test_every_container_starts_answers_and_ends(settings: Settings, tmp_path: Path) -> None:
    machine = Machine(settings, tmp_path)
    for container in containers(templates(OVERLAY)["iot-migrate"]):
        environment = machine.environment(container) | {"DAGSTER_HOME": str(tmp_path / "dagster-storage")}
        command = machine.command(container["command"])
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
    with ExitStack() as stack:
        for name in ("iot-ingest", "dagster-code", "dagster-webserver", "dagster-daemon", "iot-metrics", "iot-console"):
            stack.enter_context(machine.running(name))
