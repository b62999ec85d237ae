"""The whole path on real servers: simulator → Mosquitto → ingest daemon → Kafka → Dagster runs → TimescaleDB, compared to the byte."""

import io
import json
import os
import re
import signal
import urllib.request
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from psycopg2.extensions import connection as Connection  # noqa: N812
from rich.console import Console

from iot_platform.acceptance import data as acceptance
from iot_platform.cli.status import render
from iot_platform.diagnostics.status import Status
from iot_platform.diagnostics.trace import follow
from iot_platform.ingest_pages import counters, daemons
from iot_platform.settings import Settings
from iot_platform.simulator.comparison import Scope, compare, read
from iot_platform.simulator.record import Published
from iot_platform_tests.support.feeds.simulation import Simulation, await_everything_stored, count, stored_messages
from iot_platform_tests.support.servers.stack import Dagster, Ingest
from iot_platform_tests.support.waiting import eventually

MESSAGES = 20_000
MIX = (
    "--tenants=3", "--projects=4", "--devices=25", "--seed=7", f"--count={MESSAGES}", "--late=0.03", "--duplicate=0.03",
    "--malformed=0.05", "--conflict=0.01", "--skew=0.05", "--heartbeat=0.03", "--retained=0.01",
)  # fmt: skip
PHASES = ((3000, "1000"), (4000, "1000"), (6500, "max"), (6500, "max"))  # messages and rate
RUN_PROCESS = re.compile(r"Started process for run \(pid: (\d+)\)")


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Small batches, so that a kill meets a drain between two of many; own topics, since retained messages outlive a test."""
    root = f"mtic/{settings.kafka_topic}/client/realtime"
    own = {"drain_batch_records": 250, "mqtt_topic_filter": f"{root}/#", "topic_pattern": root + "/{tenant}/{project}/{device...}"}
    return settings.model_copy(update=own)


@pytest.fixture
def platform(ingest: Ingest, dagster: Dagster, settings: Settings) -> Settings:
    """Ingest daemon and Dagster, running."""
    ingest.start()
    dagster.start()
    return settings


@pytest.mark.timeout(240)
def test_every_message_is_stored_once_and_every_value_exactly(platform: Settings, simulation: Simulation, database: Connection) -> None:
    published = simulation.start(*MIX, "--rate=2500").finish()
    check_variety(published)
    status = await_everything_stored(platform, database, MESSAGES)
    stored = read(database, Scope(platform.kafka_topic))
    assert compare(published, stored) == []
    assert len(stored.rows) == MESSAGES
    assert stored.ledger_sums["duplicates"] == 0
    assert status.healthy, status.components
    assert status.freshness_p95_seconds is not None
    check_what_people_see(platform, status)
    assert "stored" in acceptance.row_arrives(platform)


@pytest.mark.timeout(280)
def test_nothing_is_lost_or_doubled_when_ingest_and_drain_are_killed(
    platform: Settings, simulation: Simulation, database: Connection, ingest: Ingest
) -> None:
    total = caught_working = 0
    for phase, (messages, rate) in enumerate(PHASES):
        simulation.start(*MIX, f"--count={messages}", f"--seed={100 + phase}", f"--rate={rate}")
        if phase in (2, 3):
            kill_ingest(ingest, simulation)
        eventually(
            lambda least=total + 300: stored_messages(database) >= least, 90, lambda: ("the drain gets on", _runs(platform)), pause=0.1
        )
        total += messages
        if phase in (1, 2):
            kill_drain_run(platform)
            caught_working += stored_messages(database) < total
        simulation.finish()
        ingest.await_ready()
        if phase < 2:  # the next phase's messages meet a drain that is at work; later ones find it dead
            await_everything_stored(platform, database, total)
    await_everything_stored(platform, database, MESSAGES)
    stored = read(database, Scope(platform.kafka_topic))
    assert compare(simulation.published, stored) == []
    assert len(stored.rows) == MESSAGES + stored.ledger_sums["duplicates"]
    assert caught_working, "no drain run was killed while messages waited: the test proved less than it should"
    assert count(database, "SELECT count(*) FROM message_named WHERE dup"), "the daemon was never killed with messages in flight"
    assert sum(run["status"] == "FAILURE" for run in _runs(platform, "limit: 50")) >= 2
    assert count(database, "SELECT count(DISTINCT connection_number) FROM mqtt_connection") >= 2


def kill_ingest(ingest: Ingest, simulation: Simulation) -> None:
    """kill -9 the daemon while it holds messages that are not acknowledged."""

    def busy() -> bool:
        return counters(daemons(ingest.settings))["iot_ingest_messages_in_flight"] >= 5 or not simulation.running

    eventually(busy, 60, "messages in flight", pause=0.1)
    ingest.kill()


def check_what_people_see(settings: Settings, status: Status) -> None:
    """`iot status` shows the runs, and `iot trace` leads from a stored message to the run that stored it."""
    screen = Console(file=io.StringIO(), width=200)
    screen.print(render(status, settings))
    assert isinstance(screen.file, io.StringIO)
    run = _runs(settings, "limit: 1", "runId")[0]["runId"]
    assert run in screen.file.getvalue()
    trace = follow(settings, 0, 0)
    assert trace.where in ("stored", "quarantined")
    assert trace.run_url is not None
    assert trace.run_url.startswith(settings.dagster_url)
    assert trace.notes == []


def check_variety(published: Sequence[Published]) -> None:
    """The simulation was the one these tests are about, and the broker took all of it."""
    assert len(published) == MESSAGES
    assert all(item.acked and item.sends == 1 for item in published)
    outcomes = [item.message.expected for item in published]
    assert len({outcome.tenant for outcome in outcomes if not outcome.reason}) >= 3
    assert len({(outcome.tenant, outcome.project) for outcome in outcomes if not outcome.reason}) >= 10
    kinds = Counter(item.message.kind for item in published)
    wanted = (
        "duplicate",
        "late",
        "conflict",
        "heartbeat",
        "empty",
        "not_utf8",
        "unknown_topic",
        "truncated",
        "nul",
        "extreme",
        "counter",
        "unicode",
    )
    assert not [kind for kind in wanted if not kinds[kind]]


def kill_drain_run(settings: Settings) -> None:
    """kill -9 the process of the drain run that is working now."""
    pids: list[int] = []

    def found() -> bool:
        pids[:] = _run_processes(settings)
        return bool(pids)

    eventually(found, 60, "a drain run in progress", pause=0.1)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def _run_processes(settings: Settings) -> list[int]:
    runs = _runs(settings, "filter: {statuses: [STARTED]}", "eventConnection { events { __typename ... on MessageEvent { message } } }")
    texts = [event.get("message") or "" for run in runs for event in run["eventConnection"]["events"]]
    pids = [int(match[1]) for match in map(RUN_PROCESS.search, texts) if match]
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def _runs(
    settings: Settings, which: str = "limit: 6", fields: str = "jobName status creationTime startTime endTime tags { key value }"
) -> Any:
    query = f"{{ runsOrError({which}) {{ ... on Runs {{ results {{ {fields} }} }} }} }}"
    body = json.dumps({"query": query}).encode()
    request = urllib.request.Request(f"{settings.dagster_url}/graphql", body, {"Content-Type": "application/json"})  # noqa: S310 - our own
    with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310 - as above
        return json.load(answer)["data"]["runsOrError"]["results"]
