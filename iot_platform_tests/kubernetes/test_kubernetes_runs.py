"""Dagster's runs in the cluster: a shift becomes a Job that is admitted and scheduled, its pod runs as a local process that drains, and
what becomes of it is seen in Dagster."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import psycopg2
import pytest
import yaml

from iot_platform.orchestration.environment import dagster_environment
from iot_platform.settings import Settings, exports
from iot_platform_tests.support.feeds.drain import Feed, check_books, query
from iot_platform_tests.support.kubernetes.api import Object
from iot_platform_tests.support.kubernetes.cluster import Start
from iot_platform_tests.support.kubernetes.manifests import NAMESPACE, instance, one, templates
from iot_platform_tests.support.kubernetes.nodes import environment_of
from iot_platform_tests.support.kubernetes.runs import launcher_config, run_job
from iot_platform_tests.support.servers.stack import Dagster
from iot_platform_tests.support.waiting import eventually

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(600)]
GOOD = b'{"deviceId":"sensor-001","temp":25.3,"ok":true}'
OVERLAY = "rke2"
JOBS = f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs"
SECRET = {"IOT_DATABASE_URL", "IOT_DATABASE_READER_URL", "IOT_DATABASE_ADMIN_URL", "IOT_DAGSTER_STORAGE_URL"}


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

    def log(self) -> str:
        """For people, when something is not in time."""
        pods = [self.cluster.nodes.log(pod)[-1500:] for pod in self.cluster.pods("dagster-run")]
        return "\n".join([self.dagster.log("dagster-daemon")[-3000:], *pods])

    def _tell_settings(self) -> None:
        """What the overlay's ConfigMaps and Secret say of servers, replaced by this machine's."""
        values = exports(self.settings)
        storage = {"IOT_DAGSTER_STORAGE_URL": dagster_environment(self.settings)["IOT_DAGSTER_STORAGE_URL"]}
        secret = {name: value for name, value in values.items() if name in SECRET} | storage
        own = {name: value for name, value in values.items() if name not in SECRET}
        core = f"/api/v1/namespaces/{NAMESPACE}"
        for name, data in (("iot-settings", {}), ("iot-platform-settings", own)):
            made = one(OVERLAY, "ConfigMap", name)
            kept = {key: value for key, value in made["data"].items() if not key.startswith("IOT_")}
            self.cluster.api.call("PUT", f"{core}/configmaps/{made['metadata']['name']}", made | {"data": kept | data})
        found = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "iot-database"}, "stringData": secret}
        self.cluster.api.call("PUT", f"{core}/secrets/iot-database", found)

    def _play(self, pod: Object) -> tuple[list[str], dict[str, str]] | None:
        """Its command with its environment, and of this machine only where Python and a home for Dagster are."""
        if pod["metadata"]["labels"].get("app.kubernetes.io/name") != "dagster-run":
            return None
        (container,) = pod["spec"]["containers"]
        home = self._folder / pod["metadata"]["name"]
        home.mkdir(exist_ok=True)
        environment = environment_of(self.cluster.api, pod) | {"DAGSTER_HOME": str(home), "PATH": os.environ["PATH"]}
        command, *arguments = container["args"]
        assert command == "dagster"
        return [sys.executable, "-m", "dagster", *arguments], environment


@pytest.fixture
def runs(cluster: Start, settings: Settings, dagster: Dagster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Runs]:
    """Not started yet: `runs()`."""
    (container,) = templates(OVERLAY)["dagster-code"]["spec"]["containers"]
    (image,) = [variable["value"] for variable in container["env"] if variable["name"] == "DAGSTER_CURRENT_IMAGE"]
    monkeypatch.setenv("DAGSTER_CURRENT_IMAGE", image)
    folder = tmp_path / "runs"
    folder.mkdir()
    return lambda: Runs(cluster, settings, dagster, folder).start()


def statuses(settings: Settings) -> dict[str, str]:
    """Of Dagster's runs, by their id."""
    with psycopg2.connect(settings.writer_url) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT run_id, status FROM dagster.runs")
        found = dict(cursor.fetchall())
    connection.close()
    return found


def test_a_shift_is_a_job_whose_pod_drains(runs: Callable[[], Runs], settings: Settings) -> None:
    made = runs()
    feed = Feed(settings)
    for _ in range(50):
        feed.send(GOOD)
    feed.flush()
    eventually(lambda: query(settings, "SELECT count(*) FROM message") == [(50,)], 120, made.log, pause=0.5)
    check_books(settings)

    job = made.jobs()[0]
    # What was admitted is what the documents say, but for what the API server fills in, the run's id and its arguments.
    wanted = run_job(OVERLAY)["spec"]["template"]["spec"]
    found = job["spec"]["template"]["spec"]
    assert {key: value for key, value in found.items() if key in wanted and key not in ("containers", "volumes")} == {
        key: value for key, value in wanted.items() if key not in ("containers", "volumes", "imagePullSecrets")
    }
    (container,), (meant,) = found["containers"], wanted["containers"]
    for key in ("image", "resources", "securityContext", "envFrom", "volumeMounts"):
        assert container[key] == meant[key], key
    password = settings.writer_url.partition("://")[2].partition("@")[0].partition(":")[2]
    assert password
    assert password not in json.dumps(job)
    assert "env: IOT_DAGSTER_STORAGE_URL" in container["args"][-1]

    run_id = job["metadata"]["labels"]["dagster/run-id"]
    eventually(lambda: statuses(settings).get(run_id) == "SUCCESS", 120, made.log, pause=0.5)
    eventually(lambda: made.cluster.api.get(f"{JOBS}/{job['metadata']['name']}")["status"].get("succeeded") == 1, 30)


def test_a_pod_that_is_deleted_commits_and_the_next_shift_goes_on(runs: Callable[[], Runs], settings: Settings) -> None:
    """As a node's drain deletes it: SIGTERM, then the grace period."""
    made = runs()
    feed = Feed(settings)
    feed.send(GOOD)
    feed.flush()
    eventually(lambda: query(settings, "SELECT count(*) FROM message") == [(1,)], 120, made.log, pause=0.5)
    (pod,) = [pod for pod in made.cluster.pods("dagster-run") if pod["metadata"]["labels"]["dagster/job"] == "drain"]
    process = made.cluster.nodes.process(pod)
    assert process is not None
    made.cluster.api.delete(f"/api/v1/namespaces/{NAMESPACE}/pods/{pod['metadata']['name']}")
    feed.send(GOOD)
    feed.flush()
    run_id = pod["metadata"]["labels"]["dagster/run-id"]
    assert process.wait(30) is not None  # the grace period, at whose end it would be killed, is a minute
    eventually(lambda: statuses(settings)[run_id] == "SUCCESS", 60, made.log, pause=0.5)
    eventually(lambda: query(settings, "SELECT count(*) FROM message") == [(2,)], 120, made.log, pause=0.5)
    check_books(settings)
