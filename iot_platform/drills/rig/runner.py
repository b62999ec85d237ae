"""Runs drills one after the other on a stack, and gathers their outcomes."""

import time
import traceback
from collections.abc import Callable
from pathlib import Path

from iot_platform.drills.rig.drill_run import DrillRun
from iot_platform.drills.rig.drill_stack import DrillStack
from iot_platform.drills.rig.registry import Drill
from iot_platform.drills.rig.report import Outcome, Report
from iot_platform.drills.rig.verify import Verdict, judge

Show = Callable[[str, str], None]
"""(drill, what happens now)"""


def silent(_drill: str, _text: str) -> None:
    """A Show that shows nothing."""


class Series:
    """Drills one after the other. Servers are started once and shared; a drill that is `fresh`, and whatever follows a failed one, has new
    servers. With `keep` the folder of a failed drill stays. Close it, however it ends."""

    def __init__(
        self, report: Report, *, cache_dir: Path | None = None, keep: bool = False, show: Show = lambda _name, _text: None
    ) -> None:
        self.report = report
        self._cache_dir = cache_dir
        self._keep = keep
        self._show = show
        self._stack: DrillStack | None = None

    def run(self, drill: Drill) -> Outcome:
        """One drill; a failure is an outcome too.

        Raises:
            LocalStackError: the servers can't be started here.
        """
        if reason := drill.obstacle():
            outcome = Outcome(drill.name, drill.title, drill.group, drill.proves, False, 0, 0.0, skipped=reason)
            self.report.outcomes.append(outcome)
            return outcome
        if drill.fresh:
            self.close()
        stack = self.stack(drill.name, brokers=drill.brokers, backups=drill.backups)
        outcome = perform(drill, stack, self.report, lambda text: self._show(drill.name, text))
        keep = self._keep and not outcome.passed
        outcome.kept = str(stack.folder) if keep else None
        self.report.outcomes.append(outcome)
        if drill.fresh or not outcome.passed:
            self.close(keep=keep)
        return outcome

    def stack(self, name: str = "", *, brokers: int = 1, backups: bool = False) -> DrillStack:
        """The running stack; starts one if there is none with so many Kafka nodes, and backups where they are
        wanted. The name is for what is shown meanwhile."""
        if self._stack is not None and (self._stack.brokers, self._stack.backups) != (brokers, backups):
            self.close()
        if self._stack is None:
            self._show(name, "starting the servers")
            self._stack = DrillStack(lambda text: self._show(name, text), cache_dir=self._cache_dir, brokers=brokers, backups=backups)
            self._stack.open()
            self.report.describe(self._stack)
        return self._stack

    def close(self, *, keep: bool = False) -> None:
        """End the servers."""
        if self._stack is not None:
            self._stack.close(keep=keep)
            self._stack = None


def perform(drill: Drill, stack: DrillStack, report: Report, show: Callable[[str], None] = lambda _: None) -> Outcome:
    """One drill on a running stack, from its first message to the verdict; afterwards the stack is as it was."""
    run = DrillRun(drill.name, stack, report.options, show)
    try:
        verdict = _verdict(drill, run)
    finally:
        run.fleet.close()
    try:
        stack.restore()
    except Exception as error:
        verdict.problems.append(f"the platform could not be put right again: {error}")
    return Outcome(
        drill.name, drill.title, drill.group, drill.proves, not verdict.problems, run.seed, time.monotonic() - run.began,
        messages=verdict.messages, lost=verdict.lost, expected_losses=verdict.expected_losses, doubled=verdict.doubled,
        redelivered=verdict.redelivered, recovery_seconds=verdict.recovery_seconds, audit=verdict.audit,
        memory_peak_bytes=stack.memory.peaks(run.began), faults=[_described(run, number) for number in range(len(run.faults))],
        notes=run.notes, alerts=run.sightings, problems=verdict.problems,
    )  # fmt: skip


def _verdict(drill: Drill, run: DrillRun) -> Verdict:
    try:
        run.show("publishing")
        drill.body(run)
        run.stack.heal()
        return judge(run)
    except Exception as error:  # whatever breaks a drill has failed it, and must not end the series
        place = traceback.extract_tb(error.__traceback__)[-1]
        return Verdict(problems=[*run.problems, f"{type(error).__name__} ({Path(place.filename).name}:{place.lineno}): {error}"])


def _described(run: DrillRun, number: int) -> str:
    fault = run.faults[number]
    return f"{fault.what}, {fault.began - run.began:.1f} s after the beginning, for {max(0.0, fault.ended - fault.began):.1f} s"
