"""Nodes without machines: what a kubelet reports of pods that the scheduler has bound, without running them, or with one run as a local
process. And what a storage driver does: a volume for each claim that waits for one."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from iot_platform_tests.support.kubernetes.api import Api, ApiError, Object

POLL_SECONDS = 0.25


@dataclass(frozen=True)
class Played:
    """The process that plays a pod, and whether it is ready, as its probe would find."""

    command: list[str]
    environment: dict[str, str]
    ready: Callable[[], bool] = lambda: True


Play = Callable[[Object], Played | None]
"""Of a pod; None where no process plays it."""


@dataclass(frozen=True)
class Size:
    """Of a node; a tenth of the memory and 0.2 CPUs are kept for the system, as RKE2's kubelet is told."""

    memory_mib: int
    cpus: int
    master: bool = False


# The first user's machines.
SIZES = {"master": Size(6 * 1024, 4, master=True), "worker-1": Size(4 * 1024, 2), "worker-2": Size(4 * 1024, 2)}


@dataclass
class _Pod:
    """What we know of a pod beyond what the API holds."""

    seen: float
    process: "subprocess.Popen[bytes] | None" = None
    told: bool = False
    """SIGTERM was sent."""
    ready: Callable[[], bool] = lambda: True
    shown_ready: bool = False


@dataclass
class Nodes:
    """Plays the kubelets of `sizes`. `start_seconds`: how long a pod takes to be Ready; `stop_seconds`: to be gone."""

    api: Api
    folder: Path
    sizes: dict[str, Size] = field(default_factory=lambda: dict(SIZES))
    start_seconds: float = 0.5
    stop_seconds: float = 0.5
    play: Play = lambda _: None
    problems: list[str] = field(default_factory=list)
    """What went wrong in the thread: tests look at the end."""

    def __post_init__(self) -> None:
        self._pods: dict[str, _Pod] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="nodes", daemon=True)

    def start(self) -> "Nodes":
        """Register the nodes, Ready, and play their kubelets from now on."""
        for name, size in self.sizes.items():
            self._register(name, size)
        self._thread.start()
        return self

    def stop(self) -> None:
        """End the processes and the thread, and take the nodes away."""
        self.kill()
        self._stop.set()
        self._thread.join()
        for name in self.sizes:
            with suppress(ApiError):
                self.api.delete(f"/api/v1/nodes/{name}")

    def kill(self) -> None:
        """End the processes at once, as a power cut does."""
        for pod in list(self._pods.values()):
            if pod.process and pod.process.poll() is None:
                os.killpg(pod.process.pid, signal.SIGKILL)
                pod.process.wait()

    def process(self, pod: Object) -> "subprocess.Popen[bytes] | None":
        """The process that plays this pod."""
        known = self._pods.get(pod["metadata"]["uid"])
        return known.process if known else None

    def log(self, pod: Object) -> str:
        """What the process that plays the pod printed."""
        path = self._log(pod["metadata"])
        return path.read_text("utf-8", "replace") if path.exists() else ""

    # -- private ---------------------------------------------------------------------------------------------
    def _register(self, name: str, size: Size) -> None:
        role = {"node-role.kubernetes.io/control-plane": "true"} if size.master else {}
        taints = [{"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}] if size.master else []
        labels = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64", **role}
        self.api.post("/api/v1/nodes", {"metadata": {"name": name, "labels": labels}, "spec": {"taints": taints}})
        capacity = {"cpu": str(size.cpus), "memory": f"{size.memory_mib}Mi", "pods": "110", "ephemeral-storage": "40Gi"}
        allocatable = capacity | {"cpu": f"{size.cpus * 1000 - 200}m", "memory": f"{size.memory_mib * 9 // 10}Mi"}
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastTransitionTime": _now()}
        status = {"capacity": capacity, "allocatable": allocatable, "conditions": [ready]}
        self.api.patch(f"/api/v1/nodes/{name}/status", {"status": status})

    def _run(self) -> None:
        while not self._stop.wait(POLL_SECONDS):
            try:
                for pod in self.api.items("/api/v1/pods"):
                    if pod["spec"].get("nodeName") in self.sizes:
                        self._kubelet(pod)
                for claim in self.api.items("/api/v1/persistentvolumeclaims"):
                    self._provision(claim)
            except (ApiError, OSError) as error:
                if not _is_away(error):
                    self.problems.append(str(error))

    def _kubelet(self, pod: Object) -> None:
        metadata = pod["metadata"]
        known = self._pods.setdefault(metadata["uid"], _Pod(time.monotonic()))
        path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"
        phase = pod["status"]["phase"]
        try:
            if metadata.get("deletionTimestamp"):
                self._end(pod, known, path)
            elif phase == "Pending" and time.monotonic() >= known.seen + self.start_seconds:
                self._begin(pod, known, path)
            elif phase == "Running" and known.process and known.process.poll() is not None:
                self._report(pod, path, "Succeeded" if known.process.returncode == 0 else "Failed", known.process.returncode)
            elif phase == "Running" and known.process and known.ready() != known.shown_ready:
                known.shown_ready = not known.shown_ready
                self._report(pod, path, "Running", None, ready=known.shown_ready)
            elif phase == "Running" and not known.process and _is_job(pod) and time.monotonic() >= known.seen + 2 * self.start_seconds:
                self._report(pod, path, "Succeeded", 0)
        except ApiError as error:
            if error.status not in (404, 409):  # deleted or changed meanwhile: the next look sees it
                raise

    def _begin(self, pod: Object, known: _Pod, path: str) -> None:
        if known.process is None and (played := self.play(pod)):
            known.ready = played.ready
            with self._log(pod["metadata"]).open("ab") as out:
                known.process = subprocess.Popen(
                    played.command, env=played.environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
                )
        known.shown_ready = known.ready()
        self._report(pod, path, "Running", None, ready=known.shown_ready)

    def _end(self, pod: Object, known: _Pod, path: str) -> None:
        grace = pod["metadata"].get("deletionGracePeriodSeconds", 0)
        if known.process and known.process.poll() is None:
            if not known.told:
                known.told, known.seen = True, time.monotonic()
                known.process.send_signal(signal.SIGTERM)
            elif time.monotonic() >= known.seen + grace:
                os.killpg(known.process.pid, signal.SIGKILL)
            return
        if known.process and pod["status"]["phase"] == "Running":
            self._report(pod, path, "Succeeded" if known.process.returncode == 0 else "Failed", known.process.returncode)
            return
        if not known.told:
            known.told, known.seen = True, time.monotonic()
        elif known.process or time.monotonic() >= known.seen + self.stop_seconds:
            self.api.delete(path, gracePeriodSeconds="0")

    def _report(self, pod: Object, path: str, phase: str, code: int | None, *, ready: bool = False) -> None:
        """As a kubelet does: phase, conditions, and of each container that it runs, or how it ended."""
        running = phase == "Running"
        kinds = {"Initialized": True, "Ready": ready, "ContainersReady": ready, "PodReadyToStartContainers": True}
        status: dict[str, Any] = {
            "phase": phase,
            "startTime": pod["status"].get("startTime", _now()),
            "podIP": _address(pod),
            "podIPs": [{"ip": _address(pod)}],
            "conditions": [{"type": kind, "status": str(value), "lastTransitionTime": _now()} for kind, value in kinds.items()],
        }
        completed = {"terminated": {"exitCode": 0, "reason": "Completed"}}
        ended = completed if code == 0 else {"terminated": {"exitCode": code, "reason": "Error"}}
        for key, list_ in (("containerStatuses", "containers"), ("initContainerStatuses", "initContainers")):
            main = key == "containerStatuses"
            state = completed if not main else {"running": {"startedAt": _now()}} if running else ended
            status[key] = [
                {
                    "name": container["name"],
                    "image": container["image"],
                    "imageID": container["image"],
                    "ready": ready or not main,
                    "started": running,
                    "restartCount": 0,
                    "state": state,
                }
                for container in pod["spec"].get(list_, [])
            ]
        self.api.patch(f"{path}/status", {"status": status}, "strategic")

    def _provision(self, claim: Object) -> None:
        metadata = claim["metadata"]
        node = metadata.get("annotations", {}).get("volume.kubernetes.io/selected-node")
        if claim["status"]["phase"] != "Pending" or node is None:
            return
        name = f"pvc-{metadata['uid']}"
        local = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
        bound_to_node = {"nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [local]}]}}}
        spec = {
            "capacity": claim["spec"]["resources"]["requests"],
            "accessModes": claim["spec"]["accessModes"],
            "storageClassName": claim["spec"]["storageClassName"],
            "claimRef": {"namespace": metadata["namespace"], "name": metadata["name"], "uid": metadata["uid"]},
            "hostPath": {"path": f"/volumes/{name}"},
            **(bound_to_node if claim["spec"]["storageClassName"] == "local-path" else {}),
        }
        with suppress(ApiError):  # made already, not bound yet
            self.api.post("/api/v1/persistentvolumes", {"metadata": {"name": name}, "spec": spec})

    def _log(self, metadata: Object) -> Path:
        return self.folder / f"{metadata['namespace']}-{metadata['name']}.log"


def _is_away(error: Exception) -> bool:
    return isinstance(error, OSError) or (isinstance(error, ApiError) and error.status >= 500)


def _is_job(pod: Object) -> bool:
    return any(owner["kind"] == "Job" for owner in pod["metadata"].get("ownerReferences", []))


def _address(pod: Object) -> str:
    number = int(pod["metadata"]["uid"][:4], 16)
    return f"10.42.{number >> 8}.{number & 255}"


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"


def environment_of(api: Api, pod: Object) -> dict[str, str]:
    """What the pod's first container has in its environment: ConfigMaps, Secrets, fields of the pod."""
    import base64

    namespace, (container, *_) = pod["metadata"]["namespace"], pod["spec"]["containers"]
    found: dict[str, str] = {}
    for source in container.get("envFrom", []):
        if "configMapRef" in source:
            found |= api.get(f"/api/v1/namespaces/{namespace}/configmaps/{source['configMapRef']['name']}")["data"]
        else:
            data = api.get(f"/api/v1/namespaces/{namespace}/secrets/{source['secretRef']['name']}")["data"]
            found |= {name: base64.b64decode(value).decode() for name, value in data.items()}
    for variable in container.get("env", []):
        found[variable["name"]] = variable.get("value", pod["metadata"]["name"])
    return found


def proportional_mib(pid: int) -> float:
    """A process's memory, of what it shares its share (PSS)."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
