"""The autoscaler's decisions by the real controller: up when a metric asks for it, never down, and nothing where metrics are missing."""

import time
from pathlib import Path

import pytest

from iot_platform_tests.support.kubernetes.cluster import Cluster, Start
from iot_platform_tests.support.kubernetes.manifests import NAMESPACE, Object
from iot_platform_tests.support.kubernetes.metrics_api import metrics_api
from iot_platform_tests.support.waiting import eventually

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(600)]
AUTOSCALER = f"/apis/autoscaling/v2/namespaces/{NAMESPACE}/horizontalpodautoscalers/iot-ingest"


def status(cluster: Cluster) -> Object:
    """Of the autoscaler, with its conditions by their type."""
    found = dict(cluster.api.get(AUTOSCALER)["status"])
    return found | {"conditions": {item["type"]: item for item in found.get("conditions", [])}}


def decided(cluster: Cluster, replicas: int, active: str) -> None:
    """Waits until the autoscaler wants so many and says whether it can tell."""

    def so() -> bool:
        now = status(cluster)
        return now.get("desiredReplicas") == replicas and now["conditions"].get("ScalingActive", {}).get("status") == active

    eventually(so, 60, lambda: f"not {replicas}, {active}: {status(cluster)}", pause=0.3)


def stays(cluster: Cluster, replicas: int) -> None:
    """Through several looks of the controller, which come every two seconds."""
    until = time.monotonic() + 7
    while time.monotonic() < until:
        assert status(cluster)["desiredReplicas"] == replicas
        time.sleep(0.5)


def test_it_decides_by_what_it_knows(cluster: Start, tmp_path: Path) -> None:
    made = cluster("rke2")
    made.await_ready()
    # No metrics API at all: three, as at least there are.
    decided(made, 3, "False")
    stays(made, 3)
    # The window of a minute in which the lowest wish counts would only make the test wait.
    made.api.patch(AUTOSCALER, {"spec": {"behavior": {"scaleUp": {"stabilizationWindowSeconds": 0}}}})
    with metrics_api(made.api, tmp_path) as metrics:
        metrics.cpu, metrics.in_flight = 30, 10
        decided(made, 3, "True")
        # What is known asks for more, what is missing does not hold it up; one at a time.
        metrics.cpu, metrics.in_flight = None, 9000
        eventually(lambda: status(made)["desiredReplicas"] == 4, 60, lambda: str(status(made)), pause=0.3)
        made.await_ready()
        stays(made, 4)
        metrics.in_flight = None
        decided(made, 4, "False")
        stays(made, 4)
        # Idle, and still nobody is taken away: what the broker and the volume keep for iot-ingest-3, only iot-ingest-3 gets.
        metrics.cpu, metrics.in_flight = 10, 0
        decided(made, 4, "True")
        stays(made, 4)
        # By CPU: beside the last step's minute, the limit of one a minute.
        metrics.cpu = 190
        eventually(lambda: status(made)["desiredReplicas"] == 5, 90, lambda: str(status(made)), pause=0.5)
    names = {pod["metadata"]["name"] for pod in made.await_ready()}
    assert {f"iot-ingest-{number}" for number in range(5)} <= names
