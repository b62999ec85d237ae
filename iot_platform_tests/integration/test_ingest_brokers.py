"""The daemon on brokers whose habits are not Mosquitto's: what was never acknowledged comes again without DUP, or under other packet ids,
or both; two of them speak MQTT 3.1.1 only. All brokers and what may happen to them: `make test-brokers`."""

import os
from pathlib import Path

import pytest

from iot_platform.local.errors import LocalStackError
from iot_platform.settings import Settings
from iot_platform_tests.support.brokers.apt import RabbitMq3
from iot_platform_tests.support.brokers.java import Artemis
from iot_platform_tests.support.brokers.run import RunningBroker
from iot_platform_tests.support.brokers.scenarios import Rig, judge
from iot_platform_tests.support.brokers.scripts import Aedes
from iot_platform_tests.support.servers.stack import Servers

CASES = {"no DUP, same ids": Aedes, "DUP, new ids": RabbitMq3, "no DUP, new ids": Artemis}


@pytest.mark.parametrize("case", CASES)
def test_what_was_not_acknowledged_comes_again_and_is_marked(case: str, servers: Servers, settings: Settings, tmp_path: Path) -> None:
    kind = CASES[case]
    try:
        broker = RunningBroker(kind, tmp_path / "broker").open()
    except LocalStackError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"not run: {error}")
    try:
        verdict = judge("held", Rig(broker, kind.PROTOCOLS[0], servers, settings, tmp_path))
    finally:
        broker.close()
    assert verdict.second_copies, "nothing came again: the test proved less than it should"
    verdict.check(broker.server)
