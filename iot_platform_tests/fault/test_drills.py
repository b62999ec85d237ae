"""Every failure drill of `iot drill list`; and broken platforms, which the verdict must not pass."""

import json
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest

from iot_platform.drills.catalog import all_drills
from iot_platform.drills.rig.drill_run import DrillRun, Options
from iot_platform.drills.rig.registry import Drill
from iot_platform.drills.rig.report import Report
from iot_platform.drills.rig.runner import Series, perform
from iot_platform.settings import Settings

OUTAGE_SECONDS = float(os.environ.get("IOT_DRILL_OUTAGE_SECONDS") or 60)
ROUNDS = int(os.environ.get("IOT_DRILL_ROUNDS") or 10)
SEED = int(os.environ.get("IOT_DRILL_SEED") or 1)


@pytest.fixture(scope="module")
def series() -> Iterator[Series]:
    """Servers that the drills share."""
    made = Series(
        Report(datetime.now(UTC), Options(seed=SEED, outage_seconds=OUTAGE_SECONDS, rounds=ROUNDS)), cache_dir=Settings().cache_dir
    )
    yield made
    made.close()


def parameters() -> list[object]:
    """Slow drills run in `make test-fault` only, updates in `make test-upgrade`."""
    drills = [item for item in all_drills() if item.group != "upgrade"]
    return [pytest.param(item, id=item.name, marks=() if item.fast else pytest.mark.fault) for item in drills]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("drill", parameters())
def test_nothing_is_lost_or_doubled(drill: Drill, series: Series) -> None:
    outcome = series.run(drill)
    if outcome.skipped:
        pytest.skip(outcome.skipped)
    print(f"{outcome.messages} messages, recovery {outcome.recovery_seconds}, {outcome.notes}")
    assert outcome.problems == []
    assert outcome.messages > 0
    assert outcome.audit != "not run"


# -- broken platforms ------------------------------------------------------------------------------------------
def lose_a_row(run: DrillRun) -> None:
    """Somebody deletes a message from the database."""
    _execute(run, "DELETE FROM message WHERE (kafka_partition, kafka_offset) = (%s, %s)", *_a_place(run))


def store_a_row_twice(run: DrillRun) -> None:
    """A message is in the database twice."""
    _execute(run, "INSERT INTO message SELECT * FROM message WHERE (kafka_partition, kafka_offset) = (%s, %s)", *_a_place(run))


def change_a_value(run: DrillRun) -> None:
    """The last bit of a measurement is another one."""
    which = "(SELECT series_id FROM series JOIN project USING (tenant_id, project_id) WHERE project.first_seen_at >= %s)"
    newest = f"(SELECT series_id, time FROM measurement WHERE value > 1 AND series_id IN {which} ORDER BY time DESC LIMIT 1)"
    _execute(run, f"UPDATE measurement SET value = value + 1e-9 WHERE (series_id, time) IN {newest}", run.began_at)


def skip_an_offset(run: DrillRun) -> None:
    """The ledger claims an offset more than was stored."""
    newest = "(SELECT max(batch_id) FROM ledger)"
    _execute(run, f"UPDATE ledger SET from_offset = from_offset + 1 WHERE batch_id = {newest}")


def hide_from_the_record(run: DrillRun) -> None:
    """The database holds a message that nobody published."""
    record = next(iter(run.fleet.folder.glob("published-*.jsonl")))
    lines = record.read_text("utf-8").splitlines()
    index = next(number for number, line in enumerate(lines[1:], 1) if json.loads(line)["copy_of"] is None)
    record.write_text("\n".join(lines[:index] + lines[index + 1 :]) + "\n", "utf-8")


def _a_place(run: DrillRun) -> tuple[int, int]:
    with run.database() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT kafka_partition, kafka_offset FROM message WHERE received_at >= %s LIMIT 1", (run.began_at,))
        partition, offset = cursor.fetchone() or (0, 0)
    return partition, offset


def _execute(run: DrillRun, statement: str, *values: object) -> None:
    with run.database() as connection, connection.cursor() as cursor:
        cursor.execute(statement, values)
        assert cursor.rowcount == 1


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("sabotage", "said"),
    [
        (lose_a_row, "lost: 1"),
        (store_a_row_twice, "stored too often or never published: 1"),
        (change_a_value, "measurement with another value: 1"),
        pytest.param(hide_from_the_record, "stored too often or never published: 1", marks=pytest.mark.fault),
        (skip_an_offset, "ledger of partition"),
    ],
    ids=lambda item: item.__name__ if callable(item) else "seen",
)
def test_a_broken_platform_fails_the_drill(sabotage: Callable[[DrillRun], None], said: str, series: Series) -> None:
    """The database stays damaged: but what came before a drill is not that drill's business."""

    def body(run: DrillRun) -> None:
        run.fleet.start(rate=100, seconds=2, duplicate=0, conflict=0)
        run.fleet.finish()
        run.await_stored(run.fleet.acknowledged)
        sabotage(run)

    drill = Drill(sabotage.__name__, "", "", fast=True, fresh=False, proves="", body=body, obstacle=str)
    outcome = perform(drill, series.stack(), series.report)
    assert not outcome.passed
    assert any(said in problem for problem in outcome.problems), outcome.problems
    if sabotage in (lose_a_row, skip_an_offset):
        assert any(problem.startswith("audit: ") for problem in outcome.problems), outcome.problems
