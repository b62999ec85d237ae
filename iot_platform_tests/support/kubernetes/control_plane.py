"""A real Kubernetes control plane on this machine: etcd, kube-apiserver, controller manager and scheduler, built once from Go modules."""

import hashlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event

import pytest
import requests
import yaml

from iot_platform.local import leftovers
from iot_platform.local.errors import LocalStackError, NotReadyError
from iot_platform.local.install import NETWORK, Note, cached, run_logged, which
from iot_platform.local.ports import LOOPBACK, free_ports
from iot_platform.local.program import Program
from iot_platform.local.server import await_ready
from iot_platform.local.supervisor import Supervisor
from iot_platform.settings import Settings
from iot_platform_tests.support.kubernetes.api import Api
from iot_platform_tests.support.kubernetes.manifests import KUBECTL, NAMESPACE, Object
from iot_platform_tests.support.servers.certificates import Authority
from iot_platform_tests.support.waiting import eventually

MODULE = Path(__file__).with_name("control_plane")
_TOKEN = "administrator"
_FRONT_PROXY = "front-proxy-client"
_GO = "/usr/local/go/bin/go"


def built(cache_dir: Path, log: Path, note: Note) -> Path:
    """The program `control-plane`, from the cache, or built: a quarter of an hour of processor time the first time.

    Raises:
        LocalStackError: no Go, no network.
    """
    digest = hashlib.sha256(b"".join((MODULE / name).read_bytes() for name in ("go.mod", "go.sum", "main.go"))).hexdigest()
    with cached(cache_dir / f"control-plane-{digest[:12]}", note) as new:
        if new is not None:
            go = which("go") or (_GO if Path(_GO).exists() else None)
            if go is None:
                raise LocalStackError("go is not installed: the control plane cannot be built")
            command = [go, "build", "-C", str(MODULE), "-mod=readonly", "-trimpath", "-ldflags=-s", "-o", str(new / "control-plane"), "."]
            run_logged(command, log, note, what="go build", hint=NETWORK)
    return cache_dir / f"control-plane-{digest[:12]}" / "control-plane"


@dataclass(frozen=True)
class ControlPlane:
    """A running one, empty but for what it makes itself. `api` may do everything."""

    folder: Path
    api: Api
    supervisor: Supervisor
    programs: dict[str, Program]
    kubeconfig: Path

    def kubectl(self, *arguments: str, given: str | None = None, fails: bool = False) -> str:
        """The output of a kubectl command, which must succeed, or must fail and give the reason."""
        said, warned = self.kubectl_both(*arguments, given=given, fails=fails)
        return warned if fails else said

    def kubectl_both(self, *arguments: str, given: str | None = None, fails: bool = False) -> tuple[str, str]:
        """What it printed, and what it warned of."""
        environment = {**os.environ, "KUBECONFIG": str(self.kubeconfig)}
        done = subprocess.run([KUBECTL, *arguments], input=given, capture_output=True, text=True, check=False, env=environment)
        assert (done.returncode != 0) is fails, f"kubectl {' '.join(arguments)}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout, done.stderr

    def token(self, account: str, namespace: str = NAMESPACE) -> str:
        """Of a service account, for an hour."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
        return str(self.api.post(path, {"spec": {"expirationSeconds": 3600}})["status"]["token"])

    def kubeconfig_of(self, account: str, namespace: str = NAMESPACE) -> Path:
        """A kubeconfig with that service account's rights."""
        path = self.folder / f"{account}.kubeconfig"
        path.write_text(yaml.safe_dump(_kubeconfig(self.api.url, self.api.ca_file, self.token(account, namespace))), "utf-8")
        return path

    def stop(self, name: str) -> None:
        """End a part of it."""
        self.supervisor.stop(name)

    def start(self, name: str) -> None:
        """Start it again and wait until the API answers."""
        self.supervisor.apply(self.programs[name])
        await_ready(name, partial(_answers, self.api), self.supervisor, lambda _: None, abort=Event(), seconds=60)


def _answers(api: Api) -> None:
    try:
        ready = requests.get(f"{api.url}/readyz", headers={"Authorization": f"Bearer {api.token}"}, verify=str(api.ca_file), timeout=5)
    except requests.RequestException as error:
        raise NotReadyError(str(error)) from error
    if not ready.ok:
        raise NotReadyError(ready.text)


def _kubeconfig(url: str, ca_file: Path, token: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": {"server": url, "certificate-authority": str(ca_file)}}],
        "users": [{"name": "test", "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": NAMESPACE}}],
        "current-context": "test",
    }


def _programs(binary: Path, folder: Path, port: int, kubeconfig: Path) -> dict[str, Program]:
    etcd, peer = (f"http://{LOOPBACK}:{number}" for number in free_ports(2))
    keys = folder / "keys"
    arguments: dict[str, list[str]] = {
        "etcd": [
            f"--data-dir={folder / 'etcd'}",
            f"--listen-client-urls={etcd}",
            f"--advertise-client-urls={etcd}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
            "--log-level=warn",
        ],
        "kube-apiserver": [
            f"--etcd-servers={etcd}",
            f"--bind-address={LOOPBACK}",
            f"--secure-port={port}",
            f"--advertise-address={LOOPBACK}",
            "--endpoint-reconciler-type=none",  # which refuses a loopback address
            f"--tls-cert-file={keys / 'apiserver.pem'}",
            f"--tls-private-key-file={keys / 'apiserver.key'}",
            f"--token-auth-file={keys / 'tokens.csv'}",
            "--authorization-mode=RBAC",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={keys / 'accounts.pem'}",
            f"--service-account-signing-key-file={keys / 'accounts.key'}",
            "--service-cluster-ip-range=10.43.0.0/16",
            # For servers that are reached through it, such as an adapter of metrics: who asks stands in headers that only it may set.
            f"--requestheader-client-ca-file={keys / 'ca' / 'ca.pem'}",
            f"--requestheader-allowed-names={_FRONT_PROXY}",
            "--requestheader-username-headers=X-Remote-User",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            f"--proxy-client-cert-file={keys / f'{_FRONT_PROXY}.pem'}",
            f"--proxy-client-key-file={keys / f'{_FRONT_PROXY}.key'}",
        ],
        "kube-controller-manager": [
            f"--kubeconfig={kubeconfig}",
            f"--service-account-private-key-file={keys / 'accounts.key'}",
            f"--root-ca-file={keys / 'ca' / 'ca.pem'}",
            "--leader-elect=false",
            "--secure-port=0",
            "--kube-api-qps=200",  # 20 would make namespaces go slowly
            "--kube-api-burst=400",
            "--node-monitor-grace-period=1h",  # the nodes send no heartbeats
            "--horizontal-pod-autoscaler-sync-period=2s",
            "--horizontal-pod-autoscaler-cpu-initialization-period=1s",
            "--horizontal-pod-autoscaler-initial-readiness-delay=1s",
        ],
        "kube-scheduler": [f"--kubeconfig={kubeconfig}", "--leader-elect=false", "--secure-port=0"],
    }
    return {name: Program(name, (str(binary), name, *rest), folder, stop_seconds=10) for name, rest in arguments.items()}


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """Started with the first test that asks; skipped where it cannot be built."""
    folder = tmp_path_factory.mktemp("control-plane")
    try:
        binary = built(Settings().cache_dir, folder / "install.log", lambda _: None)
    except LocalStackError as error:
        pytest.skip(f"not run: {error}")
    (port,) = free_ports(1)
    keys = folder / "keys"
    keys.mkdir()
    authority = Authority(keys / "ca")
    authority.issue(keys, "apiserver")
    authority.issue(keys, "accounts")
    authority.issue(keys, _FRONT_PROXY)
    (keys / "tokens.csv").write_text(f"{_TOKEN},administrator,administrator,system:masters\n", "ascii")
    api = Api(f"https://{LOOPBACK}:{port}", _TOKEN, authority.ca_file)
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(_kubeconfig(api.url, api.ca_file, _TOKEN)), "utf-8")
    supervisor = Supervisor(folder, die_with_parent=True)
    supervisor.ensure_running()
    made = ControlPlane(folder, api, supervisor, _programs(binary, folder, port, kubeconfig), kubeconfig)
    try:
        supervisor.apply(made.programs["etcd"])
        made.start("kube-apiserver")
        for name in ("kube-controller-manager", "kube-scheduler"):
            supervisor.apply(made.programs[name])
        # Made by controllers of both: the namespace's account, and nothing else that a test would have to wait for.
        eventually(lambda: made.api.items("/api/v1/namespaces/default/serviceaccounts"), seconds=60, what="no default service account")
        yield made
    finally:
        supervisor.shutdown()
        leftovers.end(folder)
