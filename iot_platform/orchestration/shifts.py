"""When a drain shift is requested: pure decisions from what the sensor saw, and the run tags that carry a shift's state."""

from collections.abc import Set
from dataclasses import dataclass

SHARD_TAG = "iot/shard"
SHIFT_TAG = "iot/shift"
ENDS_AT_TAG = "iot/shift_ends_at"
FAILURE_TAG = "iot/failure"
NEEDS_PERSON = "needs-a-person"

LEAD_SECONDS = 10.0
"""A successor is requested this long before the shift ends: a sensor gap of 5 s, then 2-4 s until its process waits for the lock."""
OVERTIME_SECONDS = 40.0
"""A shift drains on for so long at most until its successor waits for the lock."""
GRACE_SECONDS = 120
"""What a run may last beyond its shift (start, wait for the lock, last events) before Dagster ends it."""
STALE_START_SECONDS = 20.0
"""A run that has not begun its shift by then is taken for lost when no run drains and messages wait."""
CONNECT_SECONDS = 20.0
"""A run that started this long ago and has no database session has lost its process."""
ABSENT_SECONDS = 5.0
"""A run is reported as failed when it was seen without a session for so long: one that is just ending has none either."""
_BACKOFF_SECONDS = (0.0, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0)
_WORKED_SECONDS = 10.0
"""Most wait after a run that committed something before it failed: it was killed, or one of its partitions is in the way of the others."""
_PERSON_SECONDS = 900.0


@dataclass(frozen=True)
class ActiveRun:
    """A drain run of a shard that Dagster has not seen end; times are seconds since the epoch."""

    run_id: str
    created_at: float
    ends_at: float | None


class Absences:
    """Since when runs have been seen without a session, look after look; being seen with one ends the absence."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}

    def long(self, absent: Set[str], now: float) -> set[str]:
        """The runs among those absent at this look that have been absent for ABSENT_SECONDS; now by a clock that is not set."""
        self._since = {run_id: self._since.get(run_id, now) for run_id in absent}
        return {run_id for run_id, since in self._since.items() if now - since >= ABSENT_SECONDS}


@dataclass(frozen=True)
class Failures:
    """The unbroken series of failed runs at the end of a shard's history; the newest of them began and ended at these times."""

    count: int = 0
    last_at: float = 0.0
    last_began_at: float = 0.0
    needs_person: bool = False


@dataclass(frozen=True)
class ShardView:
    """What the sensor knows of one shard at one moment."""

    lag: int
    lock_held: bool
    active: tuple[ActiveRun, ...] = ()
    failures: Failures = Failures()
    offsets_changed_at: float = 0.0


@dataclass(frozen=True)
class Decision:
    """Whether to request a run now, and a sentence for the tick's log."""

    request: bool
    reason: str


def session_name(run_id: str) -> str:
    """PostgreSQL application_name of the connection that a drain run keeps for as long as it lives."""
    return f"drain-{run_id[:8]}"


def partitions_of_shard(partitions: tuple[int, ...], shard: int, shards: int) -> tuple[int, ...]:
    """The contiguous share of one shard; shares differ by one partition at most and are empty when shards outnumber partitions."""
    count = len(partitions)
    return partitions[shard * count // shards : (shard + 1) * count // shards]


def shard_of_partition(partitions: tuple[int, ...], partition: int, shards: int) -> int:
    """The shard whose share holds the partition."""
    return next(shard for shard in range(shards) if partition in partitions_of_shard(partitions, shard, shards))


def lead_seconds(shift_seconds: float) -> float:
    """How long before the end of a shift its successor is requested."""
    return min(LEAD_SECONDS, shift_seconds / 2)


def retry_at(failures: Failures, offsets_changed_at: float) -> float:
    """When the next run may follow a series of failures: at most 9 runs that commit nothing fail in 10 minutes.

    An error that only a person can end waits 15 minutes, or until the offsets in the database changed (somebody accepted the loss).
    """
    if failures.count == 0 or (failures.needs_person and offsets_changed_at > failures.last_at):
        return 0.0
    if failures.needs_person:
        return failures.last_at + _PERSON_SECONDS
    wait = _BACKOFF_SECONDS[min(failures.count, len(_BACKOFF_SECONDS)) - 1]
    worked = offsets_changed_at > failures.last_began_at
    return failures.last_at + (min(wait, _WORKED_SECONDS) if worked else wait)


def decide(view: ShardView, now: float, lead: float, idle_seconds: float) -> Decision:
    """Whether the shard needs another run now.

    Never more than two are active (one drains, one waits for its lock). The lock, not Dagster's opinion, says whether somebody drains:
    a run that began its shift while the lock is free has either just ended or lost its process.
    """
    if len(view.active) >= 2:
        return Decision(False, "a shift drains and its successor is on the way")
    if view.active:
        run = view.active[0]
        if run.ends_at is None and (abs(now - run.created_at) < STALE_START_SECONDS or view.lock_held):
            return Decision(False, f"run {run.run_id[:8]} is about to start")
        if run.ends_at is not None and view.lock_held:
            left = run.ends_at - now
            if left > lead:
                return Decision(False, f"run {run.run_id[:8]} drains for another {left:.0f} s")
            if view.lag <= 0 and now - view.offsets_changed_at > idle_seconds:
                return Decision(False, f"run {run.run_id[:8]} has nothing to do and ends by itself")
            return Decision(True, f"run {run.run_id[:8]} hands over in {left:.0f} s")
    if view.lag <= 0:
        return Decision(False, "no message waits")
    wait = retry_at(view.failures, view.offsets_changed_at) - now
    if 0 < wait <= _PERSON_SECONDS:  # a longer one means that the clock was set back since
        why = "needs a person, see its error" if view.failures.needs_person else "failed"
        return Decision(False, f"{view.failures.count} run(s) in a row: the last {why}; next attempt in {wait:.0f} s")
    return Decision(True, f"{view.lag} message(s) wait")
