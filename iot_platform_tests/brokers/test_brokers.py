"""The daemon on every broker of the catalogue: what it has acknowledged is never missing, and what comes again is marked, all of it and
nothing else. What the broker itself loses is a habit that docs/brokers.md names."""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from iot_platform.local.errors import LocalStackError
from iot_platform.settings import Settings
from iot_platform_tests.support.brokers.catalogue import BROKERS, HABITS
from iot_platform_tests.support.brokers.habits import Probe
from iot_platform_tests.support.brokers.run import RunningBroker
from iot_platform_tests.support.brokers.scenarios import SCENARIOS, Rig, judge
from iot_platform_tests.support.brokers.server import Protocol
from iot_platform_tests.support.servers.stack import Servers

pytestmark = [pytest.mark.brokers, pytest.mark.timeout(600)]
CASES = [(name, protocol) for name, broker in BROKERS.items() for protocol in broker.PROTOCOLS]
EACH = pytest.mark.parametrize("running", CASES, indirect=True, ids="-".join, scope="module")
Running = tuple[RunningBroker, Protocol]


@pytest.fixture(scope="module")
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    name, protocol = request.param
    try:
        broker = RunningBroker(BROKERS[name], tmp_path_factory.mktemp(name)).open()
    except LocalStackError as error:
        pytest.skip(f"not run: {error}")
    yield broker, protocol
    broker.close()


@pytest.mark.parametrize("running", HABITS, indirect=True, ids="-".join, scope="module")
def test_its_habits_are_those_that_we_know(running: Running) -> None:
    broker, protocol = running
    assert Probe(broker, protocol).habits() == HABITS[broker.server.NAME, protocol]


@EACH
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_nothing_acknowledged_is_lost(running: Running, scenario: str, servers: Servers, settings: Settings, tmp_path: Path) -> None:
    broker, protocol = running
    if scenario == "shared" and not (protocol == "5" and broker.server.SHARED):
        pytest.skip("it has no shared subscriptions")
    verdict = judge(scenario, Rig(broker, protocol, servers, settings, tmp_path))
    if path := os.environ.get("IOT_TEST_BROKERS_REPORT"):
        with Path(path).open("a", encoding="utf-8") as report:
            report.write(json.dumps(asdict(verdict)) + "\n")
    verdict.check(broker.server)
