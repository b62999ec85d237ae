"""Three Kafka brokers updated to the next release under load: the drills of group `upgrade`."""

from datetime import UTC, datetime

import pytest

from iot_platform.drills.catalog import all_drills
from iot_platform.drills.rig.drill_run import Options
from iot_platform.drills.rig.registry import Drill
from iot_platform.drills.rig.report import Report
from iot_platform.drills.rig.runner import Series
from iot_platform.settings import Settings

pytestmark = [pytest.mark.upgrade, pytest.mark.timeout(1800)]


@pytest.mark.parametrize("drill", [pytest.param(item, id=item.name) for item in all_drills() if item.group == "upgrade"])
def test_nothing_is_lost_or_doubled(drill: Drill) -> None:
    series = Series(Report(datetime.now(UTC), Options(seed=1)), cache_dir=Settings().cache_dir)
    try:
        outcome = series.run(drill)
    finally:
        series.close()
    print(f"{outcome.messages} messages, recovery {outcome.recovery_seconds}, {outcome.notes}")
    assert (outcome.skipped, outcome.problems) == ("", [])
    assert outcome.messages > 0
    assert outcome.audit != "not run"
