"""Dagster's runs in the cluster, their pods played by processes of this machine that work on the test's own Kafka and PostgreSQL."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psycopg2
import pytest
import yaml

from iot_platform.orchestration.environment import dagster_environment
from iot_platform.settings import Settings, exports
from iot_platform_tests.support.feeds.drain import query
from iot_platform_tests.support.kubernetes.api import Object
from iot_platform_tests.support.kubernetes.cluster import Start
from iot_platform_tests.support.kubernetes.manifests import NAMESPACE, instance, one, templates
from iot_platform_tests.support.kubernetes.nodes import Played, environment_of
from iot_platform_tests.support.kubernetes.runs import launcher_config
from iot_platform_tests.support.servers.stack import Dagster
from iot_platform_tests.support.waiting import eventually

OVERLAY = "rke2"
JOBS = f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
_SECRET = {"IOT_DATABASE_URL", "IOT_DATABASE_READER_URL", "IOT_DATABASE_ADMIN_URL", "IOT_DAGSTER_STORAGE_URL"}


class Runs:
    """The cluster and Dagster on the test's own servers; run pods are processes of this machine."""

    def __init__(self, cluster: Start, settings: Settings, dagster: Dagster, folder: Path) -> None:
        self.settings, self.dagster, self._folder = settings, dagster, folder
        self.cluster = cluster(OVERLAY, self._play)
        self._tell_settings()

    def start(self) -> "Runs":
        """Dagster with the cluster's dagster.yaml, as the service account of its daemon."""
        config = instance(OVERLAY)
        launcher = launcher_config(OVERLAY, self.cluster.control_plane.kubeconfig_of("dagster-daemon"))
        config["run_launcher"]["config"] = launcher
        self.dagster.start(instance_settings=yaml.safe_dump(config))
        return self

    def jobs(self) -> list[Object]:
        """Of runs, oldest first."""
        found = self.cluster.api.items(JOBS, labelSelector="app.kubernetes.io/name=dagster-run")
        return sorted(found, key=lambda job: str(job["metadata"]["creationTimestamp"]))

    def statuses(self) -> dict[str, str]:
        """Of Dagster's runs, by their id."""
        with psycopg2.connect(self.settings.writer_url) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT run_id, status FROM dagster.runs")
            found = dict(cursor.fetchall())
        connection.close()
        return found

    def drain_pod(self) -> Object:
        """Of the one shift that is at work; waits for it."""

        def working() -> list[Object]:
            pods = [pod for pod in self.cluster.pods("dagster-run") if pod["metadata"]["labels"]["dagster/job"] == "drain"]
            return [pod for pod in pods if pod["status"]["phase"] == "Running"]

        pods: list[Object] = eventually(working, 120, self.log, pause=0.3)
        assert len(pods) == 1
        return pods[0]

    def process(self, pod: Object) -> "subprocess.Popen[bytes]":
        """That plays the pod."""
        found = self.cluster.nodes.process(pod)
        assert found is not None
        return found

    def await_messages(self, count: int, seconds: float = 120) -> None:
        """Until so many are in the database, and not one more."""
        stored = lambda: query(self.settings, "SELECT count(*) FROM message")[0][0]  # noqa: E731
        eventually(lambda: stored() >= count, seconds, lambda: f"{stored()} of {count}\n{self.log()}", pause=0.5)
        assert stored() == count

    def await_rest(self, seconds: float = 200) -> None:
        """Until no run is at work or waits, and no Job either."""

        def rest() -> bool:
            ended = all(status in ("SUCCESS", "FAILURE", "CANCELED") for status in self.statuses().values())
            return ended and not any(job["status"].get("active") for job in self.jobs())

        eventually(rest, seconds, lambda: f"{self.statuses()}\n{self.log()}", pause=1)

    def log(self) -> str:
        """For people, when something is not in time."""
        pods = [self.cluster.nodes.log(pod)[-1500:] for pod in self.cluster.pods("dagster-run")]
        return "\n".join([self.dagster.log("dagster-daemon")[-3000:], *pods])

    def _tell_settings(self) -> None:
        """What the overlay's ConfigMaps and Secret say of servers, replaced by this machine's."""
        values = exports(self.settings)
        storage = {"IOT_DAGSTER_STORAGE_URL": dagster_environment(self.settings)["IOT_DAGSTER_STORAGE_URL"]}
        secret = {name: value for name, value in values.items() if name in _SECRET} | storage
        own = {name: value for name, value in values.items() if name not in _SECRET}
        core = f"/api/v1/namespaces/{NAMESPACE}"
        for name, data in (("iot-settings", {}), ("iot-platform-settings", own)):
            made = one(OVERLAY, "ConfigMap", name)
            kept = {key: value for key, value in made["data"].items() if not key.startswith("IOT_")}
            self.cluster.api.call("PUT", f"{core}/configmaps/{made['metadata']['name']}", made | {"data": kept | data})
        found = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "iot-database"}, "stringData": secret}
        self.cluster.api.call("PUT", f"{core}/secrets/iot-database", found)

    def _play(self, pod: Object) -> Played | None:
        """Its command with its environment, and of this machine only where Python and a home for Dagster are."""
        if pod["metadata"]["labels"].get("app.kubernetes.io/name") != "dagster-run":
            return None
        (container,) = pod["spec"]["containers"]
        home = self._folder / pod["metadata"]["name"]
        home.mkdir(exist_ok=True)
        environment = environment_of(self.cluster.api, pod) | {"DAGSTER_HOME": str(home), "PATH": os.environ["PATH"]}
        python, *arguments = [*container["command"], *container["args"]]
        assert python == "python"
        return Played([sys.executable, *arguments], environment)


@pytest.fixture
def cluster_runs(
    cluster: Start, settings: Settings, dagster: Dagster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], Runs]:
    """Not started yet: `cluster_runs()`."""
    (container,) = templates(OVERLAY)["dagster-code"]["spec"]["containers"]
    (image,) = [variable["value"] for variable in container["env"] if variable["name"] == "DAGSTER_CURRENT_IMAGE"]
    monkeypatch.setenv("DAGSTER_CURRENT_IMAGE", image)
    folder = tmp_path / "runs"
    folder.mkdir()
    return lambda: Runs(cluster, settings, dagster, folder).start()
