"""The platform's objects on the control plane, with nodes of the first user's sizes: what a test may change and drain."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from iot_platform_tests.support.kubernetes.api import Api, ApiError, Object
from iot_platform_tests.support.kubernetes.control_plane import ControlPlane
from iot_platform_tests.support.kubernetes.manifests import FOLDER, NAMESPACE
from iot_platform_tests.support.kubernetes.nodes import Nodes, Play
from iot_platform_tests.support.waiting import eventually

# What a cluster brings itself, on each worker: CNI, DNS, ingress controller, storage.
SYSTEM_MEMORY, SYSTEM_CPU = "700Mi", "400m"
CLUSTER_WIDE = {
    "PriorityClass": "/apis/scheduling.k8s.io/v1/priorityclasses",
    "StorageClass": "/apis/storage.k8s.io/v1/storageclasses",
}
# The storage class that k3d, or any cluster, brings.
_BROUGHT = {"dev": "local-path", "managed": "standard"}
_SYSTEM = "/apis/apps/v1/namespaces/kube-system/daemonsets"


@dataclass(frozen=True)
class Cluster:
    """A namespace with what an overlay makes, and nodes that play its pods."""

    control_plane: ControlPlane
    nodes: Nodes

    @property
    def api(self) -> Api:
        """As an administrator."""
        return self.control_plane.api

    def apply(self, overlay: str) -> None:
        """The overlay's objects and Secrets."""
        self.control_plane.kubectl("apply", "--server-side", "-k", str(FOLDER / "overlays" / overlay))
        if overlay != "dev":
            self.control_plane.kubectl("apply", "--server-side", "-f", str(FOLDER / "secrets.example.yaml"))

    def pods(self, name: str = "") -> list[Object]:
        """All pods of the platform, or those of one app.kubernetes.io/name; none that are going."""
        query = {"labelSelector": f"app.kubernetes.io/name={name}"} if name else {}
        found = self.api.items(f"/api/v1/namespaces/{NAMESPACE}/pods", **query)
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def scale(self, group: str, kind: str, name: str, **spec: object) -> Object:
        """Change the spec of an object of apps or another group."""
        return self.api.patch(f"/apis/{group}/namespaces/{NAMESPACE}/{kind}/{name}", {"spec": spec})

    def await_ready(self, seconds: float = 90) -> list[Object]:
        """Until every pod is Ready or has ended well; the pods."""

        def settled() -> bool:
            pods = self.pods()
            return bool(pods) and all(is_ready(pod) or pod["status"]["phase"] == "Succeeded" for pod in pods) and self.complete()

        eventually(settled, seconds, lambda: "\n".join(map(shown, self.pods())), pause=0.5)
        return self.pods()

    def complete(self) -> bool:
        """Whether Deployments and StatefulSets have as many pods as they want, all of the newest template."""
        for kind in ("deployments", "statefulsets"):
            for item in self.api.items(f"/apis/apps/v1/namespaces/{NAMESPACE}/{kind}"):
                status, wanted = item["status"], item["spec"]["replicas"]
                if status.get("observedGeneration") != item["metadata"]["generation"]:
                    return False
                if not (status.get("readyReplicas", 0) == status.get("updatedReplicas", 0) == status.get("replicas", 0) == wanted):
                    return False
                if kind == "statefulsets" and status.get("availableReplicas", 0) != wanted:
                    return False
        return True

    def close(self) -> None:
        """Take everything away that was applied."""
        self.nodes.kill()
        with suppress(ApiError):
            self.api.delete(f"/api/v1/namespaces/{NAMESPACE}")
        eventually(self._gone, 60, "the namespace stays", pause=0.5)
        for path in CLUSTER_WIDE.values():
            for item in self.api.items(path):
                if not item["metadata"]["name"].startswith("system-"):
                    self.api.delete(f"{path}/{item['metadata']['name']}")
        for volume in self.api.items("/api/v1/persistentvolumes"):
            self.api.patch(f"/api/v1/persistentvolumes/{volume['metadata']['name']}", {"metadata": {"finalizers": None}})
            self.api.delete(f"/api/v1/persistentvolumes/{volume['metadata']['name']}")
        with suppress(ApiError):
            self.api.delete(f"{_SYSTEM}/system", propagationPolicy="Foreground")
        eventually(lambda: not self.api.items("/api/v1/pods"), 60, "pods stay", pause=0.5)

    def _gone(self) -> bool:
        return NAMESPACE not in {item["metadata"]["name"] for item in self.api.items("/api/v1/namespaces")}


def is_ready(pod: Object) -> bool:
    """Whether it says so."""
    return any(item["type"] == "Ready" and item["status"] == "True" for item in pod["status"].get("conditions", []))


def shown(pod: Object) -> str:
    """A line for people: where a pod is, and what the scheduler says of one that is nowhere."""
    said = [item.get("message", "") for item in pod["status"].get("conditions", []) if item["status"] == "False"]
    return f"{pod['metadata']['name']} {pod['spec'].get('nodeName', '–')} {pod['status']['phase']} {said}"


def _system(api: Api) -> None:
    """What the cluster's own programs take of each worker."""
    labels = {"app": "system"}
    container = {"name": "system", "image": "system:1", "resources": {"requests": {"memory": SYSTEM_MEMORY, "cpu": SYSTEM_CPU}}}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container], "priorityClassName": "system-node-critical"}}
    spec = {"selector": {"matchLabels": labels}, "template": template}
    api.post(_SYSTEM, {"metadata": {"name": "system"}, "spec": spec})


Start = Callable[..., Cluster]


@pytest.fixture
def cluster(control_plane: ControlPlane, tmp_path: Path) -> Iterator[Start]:
    """`cluster(overlay)`: nodes and the overlay's objects; `play`: which pods run as local processes."""
    started: list[Cluster] = []

    def start(overlay: str, play: Play = lambda _: None) -> Cluster:
        made = Cluster(control_plane, Nodes(control_plane.api, tmp_path, play=play).start())
        started.append(made)
        _system(made.api)
        if name := _BROUGHT.get(overlay):
            default = {"storageclass.kubernetes.io/is-default-class": "true"}
            brought = {"metadata": {"name": name, "annotations": default}, "provisioner": "example/driver"}
            made.api.post(CLUSTER_WIDE["StorageClass"], brought | {"volumeBindingMode": "WaitForFirstConsumer"})
        made.apply(overlay)
        return made

    yield start
    for made in started:
        made.close()
        made.nodes.stop()
        assert made.nodes.problems == []
