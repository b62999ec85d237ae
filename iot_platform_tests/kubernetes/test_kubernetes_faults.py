"""A run that Dagster calls failed may still be draining, and one that it starts may not be alone: nothing is lost, doubled or stuck."""

import os
import signal
import time
from collections.abc import Callable

import pytest

from iot_platform.settings import Settings
from iot_platform_tests.support.feeds.drain import Feed, check_books
from iot_platform_tests.support.kubernetes.api import Object
from iot_platform_tests.support.kubernetes.cluster_runs import JOBS, Runs
from iot_platform_tests.support.waiting import eventually

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(900)]
GOOD = b'{"deviceId":"sensor-001","temp":25.3,"ok":true}'
AWAY_SECONDS = 20


class Devices:
    """Send some messages a second, while a block of the test lasts."""

    def __init__(self, settings: Settings) -> None:
        self._feed = Feed(settings)
        self.sent = 0

    def send(self, count: int = 10) -> None:
        """So many at once, which Kafka has when this returns."""
        for _ in range(count):
            self._feed.send(GOOD)
        self._feed.flush()
        self.sent += count

    def send_for(self, seconds: float) -> None:
        """Ten, five times a second."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.send()
            time.sleep(0.2)


def begun(made: Runs, settings: Settings) -> tuple[Devices, Object]:
    """Devices that send, and the pod of the shift that drains what they sent first."""
    devices = Devices(settings)
    devices.send()
    made.await_messages(devices.sent)
    return devices, made.drain_pod()


def settled(made: Runs, settings: Settings, devices: Devices) -> None:
    """Everything that was sent is stored once, the books balance, and in the end nothing is at work."""
    made.await_messages(devices.sent)
    check_books(settings)
    made.await_rest()
    check_books(settings)


def test_the_api_server_is_away_while_a_shift_drains(cluster_runs: Callable[[], Runs], settings: Settings) -> None:
    """Dagster fails the run, its pod works on, and the next shift comes beside it."""
    made = cluster_runs()
    devices, pod = begun(made, settings)
    process, run_id = made.process(pod), pod["metadata"]["labels"]["dagster/run-id"]
    made.cluster.control_plane.stop("kube-apiserver")
    devices.send_for(AWAY_SECONDS)
    eventually(lambda: made.statuses()[run_id] == "FAILURE", 60, made.log, pause=0.5)
    assert process.poll() is None  # called failed, and alive
    before = devices.sent
    devices.send()
    made.await_messages(before + 10)
    made.cluster.control_plane.start("kube-apiserver")
    devices.send_for(5)
    settled(made, settings, devices)


def test_a_pod_is_killed_for_its_memory(cluster_runs: Callable[[], Runs], settings: Settings) -> None:
    made = cluster_runs()
    devices, pod = begun(made, settings)
    os.killpg(made.process(pod).pid, signal.SIGKILL)
    devices.send_for(3)
    run_id = pod["metadata"]["labels"]["dagster/run-id"]
    eventually(lambda: made.statuses()[run_id] == "FAILURE", 60, made.log, pause=0.5)
    settled(made, settings, devices)


def test_two_pods_of_one_run_at_once(cluster_runs: Callable[[], Runs], settings: Settings) -> None:
    """As a resumed run would have them, or a Job that somebody made twice."""
    made = cluster_runs()
    devices, pod = begun(made, settings)
    (job,) = [job for job in made.jobs() if job["metadata"]["name"] == pod["metadata"]["labels"]["batch.kubernetes.io/job-name"]]
    template = {"metadata": {"labels": {**made_labels(job)}}, "spec": job["spec"]["template"]["spec"]}
    twin = {"metadata": {"name": "twin", "labels": made_labels(job)}, "spec": {"backoffLimit": 0, "template": template}}
    made.cluster.api.post(JOBS, twin)

    def twins() -> list[Object]:
        found = [pod for pod in made.cluster.pods("dagster-run") if pod["metadata"]["labels"]["batch.kubernetes.io/job-name"] == "twin"]
        return [pod for pod in found if made.cluster.nodes.process(pod)]

    (second,) = eventually(twins, 60, made.log, pause=0.2)
    assert made.process(pod).poll() is None
    devices.send_for(10)
    settled(made, settings, devices)
    assert made.process(second).poll() is not None


def test_a_node_is_drained_while_a_shift_drains(cluster_runs: Callable[[], Runs], settings: Settings) -> None:
    """The pod's process gets SIGTERM, commits and ends; the next shift starts on the other worker."""
    made = cluster_runs()
    devices, pod = begun(made, settings)
    node = pod["spec"]["nodeName"]
    made.cluster.control_plane.kubectl(
        "drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--pod-selector=app.kubernetes.io/name=dagster-run"
    )
    devices.send_for(3)
    assert made.process(pod).poll() is not None
    assert made.drain_pod()["spec"]["nodeName"] != node
    settled(made, settings, devices)


def made_labels(job: Object) -> dict[str, str]:
    """Those of a Job's template that the Job controller does not set itself."""
    labels = job["spec"]["template"]["metadata"]["labels"]
    return {key: value for key, value in labels.items() if "controller-uid" not in key and "job-name" not in key}
