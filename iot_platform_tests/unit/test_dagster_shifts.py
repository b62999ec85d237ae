"""Decisions of the sensor kafka_lag, and that failures never become a storm of runs."""

import pytest

from iot_platform.orchestration.shifts import (
    ABSENT_SECONDS,
    Absences,
    ActiveRun,
    Failures,
    ShardView,
    decide,
    partitions_of_shard,
    retry_at,
    shard_of_partition,
)

NOW = 1_000_000.0
LEAD = 10.0
IDLE = 30.0
STARTING = ActiveRun("starting", created_at=NOW - 2, ends_at=None)
STALE = ActiveRun("stale", created_at=NOW - 30, ends_at=None)
FUTURE = ActiveRun("future", created_at=NOW + 86_400, ends_at=None)
EARLY = ActiveRun("early", created_at=NOW - 5, ends_at=NOW + 100)
LATE = ActiveRun("late", created_at=NOW - 100, ends_at=NOW + 9)
OVERDUE = ActiveRun("overdue", created_at=NOW - 200, ends_at=NOW - 3)


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        pytest.param(ShardView(lag=0, lock_held=False), False, id="idle"),
        pytest.param(ShardView(lag=1, lock_held=False), True, id="first message"),
        pytest.param(ShardView(lag=9, lock_held=False, active=(STARTING,)), False, id="requested already"),
        pytest.param(ShardView(lag=9, lock_held=False, active=(STALE,)), True, id="a run that never begins is replaced"),
        pytest.param(ShardView(lag=0, lock_held=False, active=(STALE,)), False, id="a run that never begins, but nothing waits"),
        pytest.param(ShardView(lag=9, lock_held=True, active=(STALE,)), False, id="it waits for a run by hand"),
        pytest.param(ShardView(lag=9, lock_held=True, active=(EARLY,)), False, id="a shift drains"),
        pytest.param(ShardView(lag=0, lock_held=True, active=(LATE,), offsets_changed_at=NOW - 29), True, id="a shift ends soon"),
        pytest.param(ShardView(lag=0, lock_held=True, active=(LATE,), offsets_changed_at=NOW - 31), False, id="an idle shift ends alone"),
        pytest.param(ShardView(lag=3, lock_held=True, active=(LATE,)), True, id="a shift that is stuck ends soon"),
        pytest.param(ShardView(lag=0, lock_held=True, active=(OVERDUE,), offsets_changed_at=NOW), True, id="a shift ought to have ended"),
        pytest.param(ShardView(lag=0, lock_held=True, active=(STARTING, LATE)), False, id="the successor is on its way"),
        pytest.param(ShardView(lag=5, lock_held=False, active=(STALE, OVERDUE)), False, id="never three"),
        pytest.param(ShardView(lag=5, lock_held=False, active=(EARLY,)), True, id="its process is gone: killed, or just ended"),
        pytest.param(ShardView(lag=0, lock_held=False, active=(EARLY,)), False, id="just ended, nothing new"),
        pytest.param(ShardView(lag=5, lock_held=True), True, id="somebody drains by hand: the shift waits for the lock"),
        pytest.param(ShardView(lag=5, lock_held=False, failures=Failures(1, NOW - 1)), True, id="one failure: at once"),
        pytest.param(ShardView(lag=5, lock_held=False, failures=Failures(3, NOW - 9, NOW - 12)), False, id="three failures: wait"),
        pytest.param(ShardView(lag=5, lock_held=False, failures=Failures(3, NOW - 11)), True, id="three failures, waited"),
        pytest.param(
            ShardView(lag=5, lock_held=False, failures=Failures(6, NOW - 11, NOW - 70), offsets_changed_at=NOW - 20),
            True,
            id="killed for the sixth time, each time at work",
        ),
        pytest.param(
            ShardView(lag=5, lock_held=False, failures=Failures(6, NOW - 11, NOW - 70), offsets_changed_at=NOW - 80),
            False,
            id="the sixth that did nothing",
        ),
        pytest.param(ShardView(lag=5, lock_held=False, failures=Failures(1, NOW - 60, needs_person=True)), False, id="a person is needed"),
        pytest.param(
            ShardView(lag=5, lock_held=False, failures=Failures(1, NOW - 60, needs_person=True), offsets_changed_at=NOW - 5),
            True,
            id="a person accepted the loss",
        ),
        pytest.param(
            ShardView(lag=5, lock_held=False, failures=Failures(3, NOW + 86_400)), True, id="the clock was set back after a failure"
        ),
        pytest.param(ShardView(lag=9, lock_held=False, active=(FUTURE,)), True, id="the clock was set back after a run was lost"),
    ],
)
def test_decision(view: ShardView, expected: bool) -> None:
    decision = decide(view, NOW, LEAD, IDLE)
    assert decision.request is expected, decision.reason
    assert decision.reason


@pytest.mark.parametrize("run_seconds", [0.5, 3.0, 20.0])
@pytest.mark.parametrize("needs_person", [False, True])
def test_ten_minutes_of_failing_runs_stay_below_ten(run_seconds: float, needs_person: bool) -> None:
    now, failures, runs = NOW, Failures(), 0
    while now < NOW + 600:
        if decide(ShardView(lag=1, lock_held=False, failures=failures), now, LEAD, IDLE).request:
            runs += 1
            now += run_seconds
            failures = Failures(failures.count + 1, now, now - run_seconds, needs_person)
        now += 0.5
    assert runs <= 10


def test_back_off_ends_with_a_success() -> None:
    assert retry_at(Failures(), 0.0) == 0.0


@pytest.mark.parametrize("count", [1, 2, 6, 7, 100])
@pytest.mark.parametrize("shards", [1, 2, 3])
def test_shards_share_all_partitions_contiguously(count: int, shards: int) -> None:
    partitions = tuple(range(count))
    shares = [partitions_of_shard(partitions, shard, shards) for shard in range(shards)]
    assert tuple(p for share in shares for p in share) == partitions
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert all(p in shares[shard_of_partition(partitions, p, shards)] for p in partitions)


def test_only_an_absence_without_a_break_is_long() -> None:
    absences = Absences()
    assert absences.long({"gone", "between two connections"}, NOW) == set()
    assert absences.long({"gone"}, NOW + ABSENT_SECONDS / 2) == set()
    assert absences.long({"gone", "between two connections"}, NOW + ABSENT_SECONDS) == {"gone"}
    assert absences.long({"between two connections"}, NOW + 2 * ABSENT_SECONDS) == {"between two connections"}
