"""A run whose pod does not come says why within half a minute; Dagster alone would leave it STARTING for three."""

import time
from collections.abc import Callable

import psycopg2
import pytest

from iot_platform.settings import Settings
from iot_platform_tests.support.feeds.drain import Feed, check_books
from iot_platform_tests.support.kubernetes.cluster_runs import Runs
from iot_platform_tests.support.kubernetes.manifests import NAMESPACE
from iot_platform_tests.support.waiting import eventually

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(600)]
GOOD = b'{"deviceId":"sensor-001","temp":25.3,"ok":true}'
QUOTAS = f"/api/v1/namespaces/{NAMESPACE}/resourcequotas"
SECONDS = 30


def told(settings: Settings, text: str) -> set[str]:
    """The runs in whose log this text is."""
    with psycopg2.connect(settings.writer_url) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT DISTINCT run_id FROM dagster.event_logs WHERE event LIKE %s", (f"%{text}%",))
        found = {str(row[0]) for row in cursor.fetchall()}
    connection.close()
    return found


def launched(made: Runs, settings: Settings) -> str:
    """A message is sent, and a shift is launched for it: the run's id."""
    before = set(made.statuses())
    feed = Feed(settings)
    feed.send(GOOD)
    feed.flush()
    run_ids: set[str] = eventually(lambda: {run for run in made.statuses() if run not in before}, 60, made.log, pause=0.1)
    return run_ids.pop()


def test_a_pod_that_the_api_refuses(cluster_runs: Callable[[], Runs], settings: Settings) -> None:
    """Its run fails with the API's own words, its Job goes, and once there is room the message is drained."""
    made = cluster_runs()
    made.cluster.await_ready()
    made.cluster.api.post(QUOTAS, {"metadata": {"name": "full"}, "spec": {"hard": {"pods": "1"}}})
    eventually(lambda: "used" in made.cluster.api.get(f"{QUOTAS}/full")["status"], 30)
    run_id, begin = launched(made, settings), time.monotonic()
    eventually(lambda: made.statuses()[run_id] == "FAILURE", SECONDS, lambda: f"{made.statuses()}\n{made.log()}", pause=0.3)
    assert time.monotonic() < begin + SECONDS
    assert run_id in told(settings, "exceeded quota: full")
    assert run_id not in {job["metadata"]["labels"]["dagster/run-id"] for job in made.jobs()}
    made.cluster.api.delete(f"{QUOTAS}/full")
    made.await_messages(1)
    check_books(settings)


def test_a_pod_for_which_no_node_has_room(cluster_runs: Callable[[], Runs], settings: Settings) -> None:
    """The scheduler's words stand in the run's log while it waits; it begins when there is room."""
    made = cluster_runs()
    made.cluster.await_ready()
    for node in ("worker-1", "worker-2"):
        made.cluster.control_plane.kubectl("cordon", node)
    run_id = launched(made, settings)
    eventually(lambda: run_id in told(settings, "FailedScheduling: 0/3 nodes are available"), SECONDS, made.log, pause=0.3)
    assert made.statuses()[run_id] == "STARTING"
    for node in ("worker-1", "worker-2"):
        made.cluster.control_plane.kubectl("uncordon", node)
    made.await_messages(1)
    made.await_rest()
    assert made.statuses()[run_id] == "SUCCESS"
    check_books(settings)
