"""Runs drills one after the other on a stack, and gathers their outcomes."""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import psycopg2

from iot_platform.database import DatabaseError
from iot_platform.drills.fleet import FleetError
from iot_platform.drills.registry import Drill
from iot_platform.drills.report import Outcome, Report
from iot_platform.drills.run import DrillError, DrillRun, Options
from iot_platform.drills.stack import DrillStack
from iot_platform.drills.verify import Verdict, judge
from iot_platform.local.errors import LocalStackError
from iot_platform.resources.watermarks import KafkaUnavailableError

Show = Callable[[str, str], None]
"""(drill, what happens now)"""
_FAILURES: Final = (
    DrillError, FleetError, LocalStackError, DatabaseError, KafkaUnavailableError, psycopg2.Error, OSError, AssertionError, TimeoutError,
)  # fmt: skip


def run_drills(
    drills: Sequence[Drill],
    options: Options,
    *,
    cache_dir: Path | None = None,
    keep: bool = False,
    show: Show = lambda _name, _text: None,
    told: Callable[[Outcome], None] = lambda _: None,
) -> Report:
    """Run them in the given order; a failed one does not end the series. Servers are started once and shared; a drill that is `fresh`, and
    whatever follows a failed one, has new servers. With `keep` the folder of a failed drill stays.

    Raises:
        LocalStackError: the stack cannot be started here.
    """
    report = Report(datetime.now(UTC), options)
    stack: DrillStack | None = None
    try:
        for drill in drills:
            if reason := drill.obstacle():
                outcome = Outcome(drill.name, drill.title, drill.group, drill.proves, False, 0, 0.0, skipped=reason)
                report.outcomes.append(outcome)
                told(outcome)
                continue
            if stack is not None and drill.fresh:
                stack.close()
                stack = None
            if stack is None:
                show(drill.name, "starting the servers")
                stack = DrillStack(lambda text, name=drill.name: show(name, text), cache_dir=cache_dir)  # type: ignore[misc]
                stack.__enter__()
                report.describe(stack)
            outcome = perform(drill, stack, options, lambda text, name=drill.name: show(name, text))  # type: ignore[misc]
            report.outcomes.append(outcome)
            if not outcome.passed and keep:
                outcome.kept = str(stack.folder)
            told(outcome)
            if drill.fresh or not outcome.passed:
                stack.close(keep=keep and not outcome.passed)
                stack = None
    finally:
        if stack is not None:
            stack.close()
    return report


def perform(drill: Drill, stack: DrillStack, options: Options, show: Callable[[str], None] = lambda _: None) -> Outcome:
    """One drill on a running stack, from its first message to the verdict; afterwards the stack is as it was."""
    run = DrillRun(drill, stack, options, show)
    try:
        verdict = _verdict(run)
    finally:
        run.fleet.close()
    with suppress(*_FAILURES):
        stack.restore()
    return Outcome(
        drill.name, drill.title, drill.group, drill.proves, not verdict.problems, run.seed, time.monotonic() - run.began,
        messages=verdict.messages, lost=verdict.lost, expected_losses=verdict.expected_losses, doubled=verdict.doubled,
        redelivered=verdict.redelivered, recovery_seconds=verdict.recovery_seconds, audit=verdict.audit,
        memory_peak_bytes=stack.memory.peaks(run.began), faults=[_described(run, number) for number in range(len(run.faults))],
        notes=run.notes, problems=verdict.problems,
    )  # fmt: skip


def _verdict(run: DrillRun) -> Verdict:
    try:
        run.show("publishing")
        run.drill.body(run)
        run.stack.heal()
        return judge(run)
    except _FAILURES as error:
        return Verdict(problems=[*run.problems, f"{type(error).__name__}: {error}"])


def _described(run: DrillRun, number: int) -> str:
    fault = run.faults[number]
    return f"{fault.what}, {fault.began - run.began:.1f} s after the beginning, for {max(0.0, fault.ended - fault.began):.1f} s"
