"""On nodes of the first user's sizes: every pod has a place, a node can be drained, a new version is rolled out, and the numbers hold."""

import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from iot_platform_tests.support.kubernetes.cluster import Cluster, Start, is_ready, shown
from iot_platform_tests.support.kubernetes.manifests import NAMESPACE, OVERLAYS, instance
from iot_platform_tests.support.kubernetes.runs import run_job
from iot_platform_tests.support.waiting import eventually

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(600)]
JOBS = f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs"
NAME = "app.kubernetes.io/name"


class Numbers:
    """Of each app, the fewest that were ready and the most that there were (also ending ones) while it was looked."""

    def __init__(self) -> None:
        self.fewest: dict[str, int] = {}
        self.most: dict[str, int] = {}

    def look(self, cluster: Cluster) -> None:
        """Once."""
        ready: dict[str, int] = defaultdict(int)
        alive: dict[str, int] = defaultdict(int)
        for pod in cluster.api.items(f"/api/v1/namespaces/{NAMESPACE}/pods"):
            name = pod["metadata"]["labels"][NAME]
            alive[name] += pod["status"]["phase"] in ("Pending", "Running")
            ready[name] += is_ready(pod) and "deletionTimestamp" not in pod["metadata"]
        for name in {*ready, *self.fewest}:
            self.fewest[name] = min(self.fewest.get(name, ready[name]), ready[name])
            self.most[name] = max(self.most.get(name, 0), alive[name])


@contextmanager
def watched(cluster: Cluster) -> Iterator[Numbers]:
    """Looks several times a second while the block runs."""
    numbers, end = Numbers(), threading.Event()
    numbers.look(cluster)

    def run() -> None:
        while not end.wait(0.2):
            numbers.look(cluster)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield numbers
    finally:
        end.set()
        thread.join()


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_pod_has_a_place(cluster: Start, overlay: str) -> None:
    """And beside them as many runs as may be at a time."""
    made = cluster(overlay)
    pods = made.await_ready()
    assert {pod["spec"]["nodeName"] for pod in pods} <= {"worker-1", "worker-2"}
    several = {"dev": 1, "rke2": 3, "managed": 3}[overlay]
    assert len(made.pods("iot-ingest")) == several
    assert overlay == "dev" or {pod["spec"]["nodeName"] for pod in made.pods("iot-ingest")} == {"worker-1", "worker-2"}
    runs = instance(overlay)["concurrency"]["runs"]["max_concurrent_runs"] + 2
    for _ in range(runs):
        made.api.post(JOBS, run_job(overlay))

    def placed() -> bool:
        pods = made.pods("dagster-run")
        return len(pods) == runs and all(pod["spec"].get("nodeName") for pod in pods)

    eventually(placed, 30, lambda: "\n".join(map(shown, made.pods("dagster-run"))), pause=0.2)


def test_a_node_is_drained_and_everything_lives_on_the_other(cluster: Start) -> None:
    made = cluster("rke2")
    made.await_ready()
    (daemon,) = made.pods("dagster-daemon")
    node = daemon["spec"]["nodeName"]
    (other,) = {"worker-1", "worker-2"} - {node}
    with watched(made) as numbers:
        made.control_plane.kubectl("drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=180s")
        pods = made.await_ready()
    assert {pod["spec"]["nodeName"] for pod in pods if pod["status"]["phase"] == "Running"} == {other}
    assert numbers.fewest["iot-ingest"] >= 2
    assert numbers.fewest["dagster-code"] >= 1
    assert numbers.fewest["grafana"] >= 1
    assert numbers.fewest["iot-console"] >= 1
    assert numbers.most["dagster-daemon"] == 1


def test_a_new_version_is_rolled_out_one_at_a_time(cluster: Start) -> None:
    made = cluster("rke2")
    before = {pod["metadata"]["name"]: pod for pod in made.await_ready()}
    with watched(made) as numbers:
        for what in (
            "statefulset/iot-ingest",
            "deployment/dagster-code",
            "statefulset/dagster-daemon",
            "deployment/grafana",
            "deployment/iot-console",
        ):
            name = what.partition("/")[2]
            made.control_plane.kubectl("set", "image", what, f"{name}=192.168.1.100:8080/rke2/{name}:new")
        made.await_ready(180)
    assert numbers.fewest["iot-ingest"] == 2
    assert numbers.fewest["dagster-code"] == 2
    assert numbers.fewest["grafana"] == 2
    assert numbers.fewest["iot-console"] == 2
    assert numbers.most["dagster-daemon"] == 1
    daemons = made.pods("iot-ingest")
    assert all(pod["spec"]["containers"][0]["image"].endswith(":new") for pod in daemons)
    # The same names, so the same client ids, each with the volume that it had.
    assert {pod["metadata"]["name"] for pod in daemons} == {name for name in before if name.startswith("iot-ingest-")}
    claims = {pod["metadata"]["name"]: claim(pod) for pod in daemons}
    assert claims == {name: f"state-{name}" for name in claims}


def claim(pod: dict[str, object]) -> str:
    """The name of the volume claim of a daemon's pod."""
    (found,) = [volume["persistentVolumeClaim"]["claimName"] for volume in pod["spec"]["volumes"] if "persistentVolumeClaim" in volume]  # type: ignore[index]
    return str(found)
