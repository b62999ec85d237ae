"""Drills: servers that stay away for long. Messages wait on disk, memory stays flat, and what waited is worked off in minutes."""

import time
from typing import Final

from iot_platform.drills.rig.drill_run import DrillRun
from iot_platform.drills.rig.drill_stack import INGEST
from iot_platform.drills.rig.registry import drill

OUTAGE_SECONDS: Final = 600.0
RECOVERY_SECONDS: Final = 180.0
SPOOL_SECONDS: Final = 180.0
MAX_FAILED_RUNS: Final = 10
_LARGEST: Final = """
SELECT coalesce(max(to_offset - from_offset) FILTER (WHERE committed_at < %(ended)s), 0),
       coalesce(max(to_offset - from_offset) FILTER (WHERE committed_at >= %(ended)s), 0)
FROM ledger WHERE batch_id > %(first)s AND kind = 'drain'
"""


@drill("kafka_down", "Kafka away for 10 minutes", group="outages")
def kafka_down(run: DrillRun) -> None:
    """The daemon says so, keeps taking messages and puts them on disk; its memory stays flat, and afterwards the spool empties at least
    twice as fast as it filled."""
    seconds = run.outage_seconds(OUTAGE_SECONDS)
    run.fleet.start(rate=500, seconds=seconds, devices=200)
    run.await_stored(1000)
    with run.fault(f"Kafka away for {seconds:.0f} s") as fault:
        run.stack.kill_for_good("kafka")
        run.hold(seconds / 2)
        problems, (half_way, half_at) = run.stack.problems() or [], _spooled(run)
        run.check(any("Kafka" in text for text in problems), f"/readyz does not complain of Kafka: {problems}")
        run.hold(seconds / 2)
        most, at = _spooled(run)
        run.check(most > half_way > 0, f"the spool did not fill: {half_way:,} messages half-way, {most:,} at the end")
        run.stack.start("kafka")
    run.check_memory_flat(fault)
    _judge_emptying(run, (most - half_way) / (at - half_at))
    run.fleet.finish()


@drill("database_down", "PostgreSQL away for 10 minutes at 1,000 messages a second", group="outages")
def database_down(run: DrillRun) -> None:
    """Messages wait in Kafka, no memory grows, no storm of failed runs rises; afterwards batches get larger, and all is caught up within
    three minutes."""
    seconds = run.outage_seconds(OUTAGE_SECONDS)
    run.fleet.start(rate=1000, seconds=seconds, devices=200)
    run.await_stored(3000)
    with run.fault(f"PostgreSQL away for {seconds:.0f} s") as fault:
        run.stack.kill_for_good("postgresql")
        run.hold(seconds)
        run.stack.start("postgresql")
    run.check_memory_flat(fault)
    run.await_stored(run.fleet.acknowledged, seconds=RECOVERY_SECONDS)  # while the fleet publishes on
    run.fleet.finish()
    run.limit_recovery(RECOVERY_SECONDS)
    _check_batches(run)
    failed = run.failed_runs()
    run.note(f"{failed} failed Dagster runs")
    run.check(failed <= MAX_FAILED_RUNS, f"{failed} failed Dagster runs, more than {MAX_FAILED_RUNS}")


def _spooled(run: DrillRun) -> tuple[int, float]:
    """Messages in the daemon's spool, and the time.monotonic() of the answer; -1 when there is none."""
    metrics = run.stack.metrics(INGEST)
    return (int(metrics["iot_ingest_spool_messages"]) if metrics else -1), time.monotonic()


def _judge_emptying(run: DrillRun, filled_per_second: float) -> None:
    """From the fullest spool to an empty one; what is published meanwhile goes through it too."""
    peak = _spooled(run)

    def empty() -> bool:
        nonlocal peak
        now = _spooled(run)
        peak = max(peak, now)
        return now[0] == 0

    run.await_true("the spool is empty", empty, max(SPOOL_SECONDS, run.faults[-1].ended - run.faults[-1].began))
    taken = max(0.1, time.monotonic() - peak[1])
    rate = peak[0] / taken + filled_per_second
    run.note(f"spool: {peak[0]:,} messages, filled at {filled_per_second:,.0f}/s, emptied at {rate:,.0f}/s in {taken:.1f} s")
    run.check(rate >= 2 * filled_per_second, f"the spool filled at {filled_per_second:,.0f}/s and emptied only at {rate:,.0f}/s")


def _check_batches(run: DrillRun) -> None:
    fault = run.faults[-1]
    with run.database() as connection, connection.cursor() as cursor:
        cursor.execute(_LARGEST, {"ended": fault.ended_at, "first": run.first_batch})
        before, after = cursor.fetchone() or (0, 0)
    run.note(f"largest batch {before:,} messages before the end of the outage, {after:,} after it")
    run.check(after > before, f"batches did not widen: at most {before:,} messages before, {after:,} afterwards")
