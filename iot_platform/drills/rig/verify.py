"""The verdict on a drill: everything acknowledged is stored, nothing twice, every value exact, the audit has nothing to say."""

import importlib
import math
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import psycopg2

from iot_platform.database import DatabaseError
from iot_platform.drills.rig.drill_run import DrillRun
from iot_platform.kafka.errors import KafkaUnavailableError
from iot_platform.simulator.comparison import Comparison, Log, Place, Stored, examine, read
from iot_platform.simulator.record import Published
from iot_platform.telemetry.drain.partition_state import look

SETTLE_SECONDS: Final = 240.0
QUIET_LOOKS: Final = 3
"""Everything must be at rest at so many looks in a row: the broker may hold a message that no other program has seen yet."""
POLL_SECONDS: Final = 0.5
LATE_SECONDS: Final = 3.0
"""A message that is stored later than this after it was published was held up; the last such message ends the recovery."""
AUDIT_SECONDS: Final = 60.0


@dataclass
class Verdict:
    """What became of a drill's messages. `recovery_seconds` None: there was no fault."""

    messages: int = 0
    lost: int = 0
    doubled: int = 0
    redelivered: int = 0
    expected_losses: int = 0
    recovery_seconds: float | None = None
    audit: str = "not run"
    problems: list[str] = field(default_factory=list)


def judge(run: DrillRun) -> Verdict:
    """Wait (bounded) until all is stored, then compare. Needs every server and program up."""
    verdict = Verdict(problems=list(run.problems))
    if not await_rest(run):
        verdict.problems.append(f"not at rest after {SETTLE_SECONDS:.0f} s: {_state(run).text}")
    run.show("comparing")
    published = run.fleet.published()
    stored = _read(run, published)
    _weigh(run, verdict, published, stored)
    verdict.recovery_seconds = recovery_seconds(run, published, stored)
    limit = run.recovery_limit_seconds
    if limit is not None and (verdict.recovery_seconds or 0) > limit:
        verdict.problems.append(f"recovered only after {verdict.recovery_seconds:.0f} s, more than {limit:.0f} s")
    run.show("auditing")
    _audit(run, verdict)
    return verdict


# -- at rest ---------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class State:
    """How far the platform is with a drill's messages; None is unknown, because a server did not answer."""

    acknowledged: int
    stored: int
    lag: int | None
    in_flight: int | None
    spooled: int | None

    def at_rest(self, losses: float) -> bool:
        """Whether everything is stored, as far as one can see."""
        return self.stored >= self.acknowledged - losses and self.lag == 0 and self.in_flight == 0 and self.spooled == 0

    @property
    def text(self) -> str:
        """For the screen."""
        figures = {"lag": self.lag, "in flight": self.in_flight, "spooled": self.spooled}
        shown = ", ".join(f"{name} {'?' if value is None else f'{value:,}'}" for name, value in figures.items())
        return f"{self.stored:,} of {self.acknowledged:,} stored, {shown}"


def await_rest(run: DrillRun, seconds: float = SETTLE_SECONDS) -> bool:
    """Until everything acknowledged is stored and nothing is under way; False when that takes too long. Progress renews the patience."""
    give_up, quiet, best = time.monotonic() + seconds, 0, -1
    losses: float = sum(count for count, _ in run.expected_losses)
    if run.unknown_losses or run.forgiven:
        losses = math.inf
    while quiet < QUIET_LOOKS:
        state = _state(run)
        quiet = quiet + 1 if state.at_rest(losses) else 0
        if state.stored > best:
            best, give_up = state.stored, time.monotonic() + seconds
        if time.monotonic() > give_up:
            return False
        run.show(f"waiting: {state.text}")
        time.sleep(POLL_SECONDS)
    return True


def _state(run: DrillRun) -> State:
    daemons = [run.stack.metrics(name) for name in run.stack.ingests]
    in_flight = spooled = None
    if all(daemon is not None for daemon in daemons):
        in_flight = sum(int(daemon["iot_ingest_messages_in_flight"]) for daemon in daemons if daemon)
        spooled = sum(int(daemon.get("iot_ingest_spool_messages", 0)) for daemon in daemons if daemon)
    return State(run.fleet.acknowledged, run.stored(), _lag(run), in_flight, spooled)


def _lag(run: DrillRun) -> int | None:
    """Records that wait for the drain; one at least in each partition of which no drain has seen yet that its log still goes on."""
    with suppress(psycopg2.Error, DatabaseError, KafkaUnavailableError), run.database() as connection:
        return look(run.settings, connection).wants_run
    return None


# -- comparison ------------------------------------------------------------------------------------------------
def _read(run: DrillRun, published: Sequence[Published]) -> Stored:
    tenants = {item.message.expected.tenant for item in published}
    with run.database() as connection:
        return read(connection, run.scope, tenants)


def _weigh(run: DrillRun, verdict: Verdict, published: Sequence[Published], stored: Stored) -> None:
    compared = examine(published, stored)
    verdict.messages, verdict.lost, verdict.doubled = compared.messages, compared.lost, compared.doubled
    verdict.redelivered = compared.redelivered
    verdict.expected_losses = wanted = sum(count for count, _ in run.expected_losses)
    if run.forgiven:
        compared = _forgive(run, verdict, published, stored)
    verdict.problems += compared.problems
    if run.unknown_losses:
        verdict.expected_losses = compared.lost
        if not compared.lost:
            verdict.problems.append(f"nothing was lost, although {run.unknown_losses}")
    elif compared.lost != wanted:
        expected = "; ".join(f"{count} expected: {why}" for count, why in run.expected_losses)
        verdict.problems += compared.losses or [f"nothing was lost, although {expected}"]
        if compared.losses and expected:
            verdict.problems.append(expected)


def _forgive(run: DrillRun, verdict: Verdict, published: Sequence[Published], stored: Stored) -> Comparison:
    """The comparison without what the broker may have lost, or delivered once more for each of its deaths."""

    def weakened(item: Published) -> Published:
        times = sum(begin <= item.published_us <= end for begin, end in run.forgiven)
        return replace(item, acked=item.acked and not times, sends=item.sends + times)

    compared = examine([weakened(item) for item in published], stored)
    lost, again = verdict.lost - compared.lost, verdict.doubled - compared.doubled
    run.note(f"the broker lost {lost:,} messages and delivered {again:,} again as new")
    if not lost + again:
        verdict.problems.append("the broker lost nothing, although it had not saved what it took last")
    verdict.expected_losses += lost
    verdict.doubled = compared.doubled
    return compared


def recovery_seconds(run: DrillRun, published: Sequence[Published], stored: Stored) -> float | None:
    """From the end of the last fault to the commit of the last message that was held up (0: nothing was held up any more)."""
    ended = [fault.ended_at for fault in run.faults if fault.ended_at is not None]
    if not ended or not stored.ledger:
        return None
    fault_end_us = int(max(ended).timestamp() * 1_000_000)
    sent: Counter[tuple[bytes, bytes]] = Counter()
    published_us = {}
    for item in published:
        content = (item.message.topic.encode(), item.message.payload)
        sent[content] += 1
        published_us[content] = item.published_us
    commits = _commit_times(stored)
    held_up = [
        commits[row.place]
        for row in stored.rows
        if row.duplicate_of is None and sent[row.content] == 1 and commits[row.place] - published_us[row.content] > LATE_SECONDS * 1e6
    ]
    return max(0.0, (max(held_up, default=0) - fault_end_us) / 1e6)


def _commit_times(stored: Stored) -> dict[Place, int]:
    """When each row was committed, µs since the epoch, by its place; 0 for rows of no batch."""
    found: dict[Place, int] = {}
    begins: dict[Log, list[tuple[int, int]]] = {}
    for (log, begin, _, _), committed in zip(stored.ledger, stored.committed_us, strict=True):
        begins.setdefault(log, []).append((begin, committed))
    offsets: dict[Log, list[int]] = {}
    for row in stored.rows:
        offsets.setdefault(row.place[:2], []).append(row.place[2])
    for log, several in offsets.items():
        ranges = np.array(begins.get(log, [(0, 0)]), dtype=np.int64)
        index = np.searchsorted(ranges[:, 0], np.array(several, dtype=np.int64), side="right") - 1
        for offset, committed in zip(several, ranges[np.maximum(index, 0), 1], strict=True):
            found[*log, offset] = int(committed)
    return found


# -- audit -----------------------------------------------------------------------------------------------------
def _audit(run: DrillRun, verdict: Verdict) -> None:
    """The platform's own proof. What it must find, it must find; anything else is a failure."""
    try:
        audit: Any = importlib.import_module("iot_platform.audit")
    except ModuleNotFoundError:
        return
    settings = run.settings.model_copy(update={"ingest_http_url": ",".join(map(run.stack.ingest_url, run.stack.ingests))})
    result = audit.run_audit(settings, since=run.began_at, tenant=None, wait_seconds=AUDIT_SECONDS, note=run.show)
    found = {difference.kind for difference in result.differences}
    unexpected = [difference for difference in result.differences if difference.kind not in run.expected_differences]
    verdict.audit = "ok" if not result.differences else f"{len(result.differences)} difference(s)"
    verdict.problems += [f"audit: {difference.text}" for difference in unexpected[:5]]
    if not result.ok and not result.differences:
        verdict.problems.append("the audit failed without naming a difference")
    for text in [*result.notes, *result.doubts]:
        run.note(f"audit: {text}")
    missing = result.sequence_sums()["missing"]
    if run.unknown_losses and missing != verdict.lost:
        verdict.problems.append(f"the audit misses {missing} messages, but {verdict.lost} were lost: {run.unknown_losses}")
    for kind, why in run.expected_differences.items():
        if kind not in found:
            verdict.problems.append(f"the audit does not name '{kind}', although {why}")
