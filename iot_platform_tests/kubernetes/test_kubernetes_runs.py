"""Dagster's runs in the cluster: a shift becomes a Job that is admitted and scheduled, its pod runs as a local process that drains, and
what becomes of it is seen in Dagster."""

import json
from collections.abc import Callable

import pytest

from iot_platform.settings import Settings
from iot_platform_tests.support.feeds.drain import Feed, check_books
from iot_platform_tests.support.kubernetes.cluster_runs import JOBS, OVERLAY, PODS, Runs
from iot_platform_tests.support.kubernetes.nodes import proportional_mib
from iot_platform_tests.support.kubernetes.runs import run_job
from iot_platform_tests.support.waiting import eventually

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(600)]
GOOD = b'{"deviceId":"sensor-001","temp":25.3,"ok":true}'


def test_a_shift_is_a_job_whose_pod_drains(cluster_runs: Callable[[], Runs], settings: Settings) -> None:
    made = cluster_runs()
    feed = Feed(settings)
    for _ in range(50):
        feed.send(GOOD)
    feed.flush()
    made.await_messages(50)
    check_books(settings)

    job = made.jobs()[0]
    # What was admitted is what the documents say, but for what the API server fills in, the run's id and its arguments.
    wanted = run_job(OVERLAY)["spec"]["template"]["spec"]
    found = job["spec"]["template"]["spec"]
    assert {key: value for key, value in found.items() if key in wanted and key not in ("containers", "volumes")} == {
        key: value for key, value in wanted.items() if key not in ("containers", "volumes", "imagePullSecrets")
    }
    (container,), (meant,) = found["containers"], wanted["containers"]
    for key in ("image", "command", "resources", "securityContext", "envFrom", "volumeMounts"):
        assert container[key] == meant[key], key
    password = settings.writer_url.partition("://")[2].partition("@")[0].partition(":")[2]
    assert password
    assert password not in json.dumps(job)
    assert "env: IOT_DAGSTER_STORAGE_URL" in container["args"][-1]

    run_id = job["metadata"]["labels"]["dagster/run-id"]
    eventually(lambda: made.statuses().get(run_id) == "SUCCESS", 120, made.log, pause=0.5)
    eventually(lambda: made.cluster.api.get(f"{JOBS}/{job['metadata']['name']}")["status"].get("succeeded") == 1, 30)
    (pod,) = [pod for pod in made.cluster.pods("dagster-run") if pod["metadata"]["labels"]["dagster/run-id"] == run_id]
    assert all("event" in json.loads(line) for line in made.cluster.nodes.log(pod).splitlines())


def test_a_pod_that_is_deleted_commits_and_the_next_shift_goes_on(cluster_runs: Callable[[], Runs], settings: Settings) -> None:
    """As a node's drain deletes it: SIGTERM, then the grace period."""
    made = cluster_runs()
    feed = Feed(settings)
    feed.send(GOOD)
    feed.flush()
    made.await_messages(1)
    pod = made.drain_pod()
    process = made.process(pod)
    used = proportional_mib(process.pid)
    print(f"a drain's memory: {used:.0f} MiB")
    assert used < 768
    made.cluster.api.delete(f"{PODS}/{pod['metadata']['name']}")
    feed.send(GOOD)
    feed.flush()
    run_id = pod["metadata"]["labels"]["dagster/run-id"]
    assert process.wait(30) is not None  # the grace period, at whose end it would be killed, is a minute
    eventually(lambda: made.statuses()[run_id] == "SUCCESS", 60, made.log, pause=0.5)
    made.await_messages(2)
    check_books(settings)
