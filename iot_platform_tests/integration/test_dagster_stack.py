"""Dagster's own processes on real servers: a message shows up in the UI with its project, and killed processes lose nothing."""

import json
import os
import signal
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from iot_platform.database import connect
from iot_platform.database.locks import shard_lock
from iot_platform.settings import Settings
from iot_platform_tests.support.feeds.drain import Feed, check_books, query
from iot_platform_tests.support.servers.stack import Dagster
from iot_platform_tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(240)

GOOD = b'{"deviceId":"sensor-001","temp":25.3,"ok":true}'
KEY = "1968193631353446400/1968193691042586624"
MATERIALIZATIONS = """query($key: AssetKeyInput!, $partitions: [String!]) { assetOrError(assetKey: $key) { ... on Asset {
  assetMaterializations(limit: 1, partitions: $partitions) {
    partition metadataEntries { label ... on IntMetadataEntry { intValue } ... on TextMetadataEntry { text } } } } } }"""

LAUNCH = """mutation($parameters: ExecutionParams!) { launchRun(executionParams: $parameters) { __typename
  ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } ... on InvalidSubsetError { message } } }"""


def ask(dagster: Dagster, query_text: str, **variables: object) -> dict[str, Any]:
    """A GraphQL query to the webserver."""
    body = json.dumps({"query": query_text, "variables": variables}).encode()
    request = urllib.request.Request(f"{dagster.url}/graphql", body, {"Content-Type": "application/json"})  # noqa: S310  our own webserver
    with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310
        answer: dict[str, Any] = json.load(response)["data"]
    return answer


def materialization(dagster: Dagster, asset: str, partition: str) -> dict[str, Any] | None:
    """Metadata of the newest materialization of a partition, as the UI has it."""
    found = ask(dagster, MATERIALIZATIONS, key={"path": [asset]}, partitions=[partition])["assetOrError"].get("assetMaterializations")
    if not found:
        return None
    return {entry["label"]: entry.get("intValue", entry.get("text")) for entry in found[0]["metadataEntries"]}


def test_a_message_appears_with_its_project_and_survives_kills(settings: Settings, dagster: Dagster) -> None:
    dagster.start()
    feed = Feed(settings)
    feed.send(GOOD)
    feed.flush()
    eventually(lambda: materialization(dagster, "project", KEY), 60, lambda: dagster.log("dagster-daemon")[-3000:], pause=0.2)
    figures = materialization(dagster, "project", KEY)
    assert figures is not None
    assert (figures["messages"], figures["measurements"], figures["kafka_offsets"]) == (1, 2, "0: 0…0")
    assert materialization(dagster, "message", "0")
    assert materialization(dagster, "tenant", KEY.split("/", maxsplit=1)[0])

    os.kill(_drain_process(settings), signal.SIGKILL)
    _send_and_await(settings, feed, 20)
    dagster.kill("dagster-daemon")
    dagster.kill("dagster-code")  # its group: runs too
    _send_and_await(settings, feed, 20)
    check_books(settings)


@pytest.mark.timeout(400)
def test_runs_of_users_do_not_hold_up_shifts(settings: Settings, dagster: Dagster) -> None:
    """The only place for runs is taken by one that waits for a shard (a run by hand, or that shard's shift), others wait in the queue. The
    other shard is drained all the same."""
    dagster.settings = settings = settings.model_copy(update={"drain_shards": 2})
    with closing(connect(settings)) as connection, shard_lock(connection, 1, 5):
        feed = Feed(settings)
        feed.send(GOOD, partition=1)
        feed.flush()
        dagster.start(concurrent_runs=1)
        by_hand = [launch(dagster, "1") for _ in range(3)]
        queued = lambda: [status(dagster, run) for run in by_hand].count("QUEUED")  # noqa: E731
        eventually(lambda: queued() >= 2, 60, "the runs by hand do not wait", pause=0.2)
        feed.send(GOOD, partition=0)
        feed.flush()
        eventually(
            lambda: query(settings, "SELECT count(*) FROM message") == [(1,)], 60, lambda: dagster.log("dagster-daemon")[-3000:], pause=0.2
        )
        assert queued() >= 2
    eventually(lambda: {status(dagster, run) for run in by_hand} == {"SUCCESS"}, 200, "the runs by hand did not end", pause=0.2)
    check_books(settings)


def launch(dagster: Dagster, partition: str) -> str:
    """Materialize a Kafka partition by hand, as the UI does; the run's id."""
    selector = {"repositoryName": "__repository__", "repositoryLocationName": "iot_platform", "jobName": "drain"}
    tags = [{"key": "dagster/partition", "value": partition}]
    parameters = {"selector": selector, "mode": "default", "executionMetadata": {"tags": tags}}
    answer = ask(dagster, LAUNCH, parameters=parameters)["launchRun"]
    assert "run" in answer, answer
    return str(answer["run"]["runId"])


def status(dagster: Dagster, run: str) -> str:
    """Dagster's status of a run."""
    return str(ask(dagster, "query($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }", id=run)["runOrError"]["status"])


def _send_and_await(settings: Settings, feed: Feed, count: int) -> None:
    before = query(settings, "SELECT count(*) FROM message")[0][0]
    for number in range(count):
        feed.send(GOOD, partition=number % 2)
    feed.flush()
    eventually(lambda: query(settings, "SELECT count(*) FROM message")[0][0] == before + count, 90, "messages were not drained", pause=0.2)


def _drain_process(settings: Settings) -> int:
    """The process that drains: the one whose environment names this test's database."""
    marker = settings.writer_url.encode()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if b"spawn_main" in (entry / "cmdline").read_bytes() and marker in (entry / "environ").read_bytes():
                return int(entry.name)
        except OSError:  # it ended meanwhile
            continue
    raise AssertionError("no run is at work")
