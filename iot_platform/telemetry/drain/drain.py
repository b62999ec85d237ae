"""A drain: empties Kafka partitions into the database for one bounded shift, in lanes, each batch exactly once."""

import copy
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from iot_platform.kafka.errors import KafkaUnavailableError, TopicMissingError
from iot_platform.kafka.watermarks import WORK_SECONDS, TopicIdentity, TopicOffsets
from iot_platform.logs import get_logger
from iot_platform.settings import Settings
from iot_platform.telemetry.drain import batch_counts
from iot_platform.telemetry.drain.batch_counts import Outcome
from iot_platform.telemetry.drain.lane import Lane
from iot_platform.telemetry.drain.progress import PartitionProgress, Progress, ProjectProgress
from iot_platform.telemetry.drain.quiet_collector import QuietCollector
from iot_platform.telemetry.errors import DrainError, TopicRecreatedError

__all__ = ["Drain", "PartitionProgress", "Progress", "ProjectProgress", "Shift"]

log = get_logger(__name__)

PROGRESS_SECONDS: Final = 1.0
TICK_SECONDS: Final = 0.1
TOPIC_CHECK_SECONDS: Final = 5.0
AT_WORK_SECONDS: Final = 1.0
"""A drain counts as busy for so long after a commit."""
STOP_SECONDS: Final = 90.0
"""A halted lane finishes at most two batches; PostgreSQL ends a statement after 120 s at worst."""
SWITCH_INTERVAL_SECONDS: Final = 0.001
"""The writing thread waits this long for the interpreter lock at each COPY read (default 5 ms)."""


@dataclass(frozen=True)
class Shift:
    """What one drain works on. `until_caught_up`: end once the offsets that the log held at the start are committed, however long that
    takes; otherwise after `seconds` (None: drain_shift_seconds), drain_idle_seconds without a message, when `fits` says of all the
    partitions that the topic has now that the shift is not made for them, or when `is_over`, asked about once a second, says that its
    successor waits."""

    partitions: tuple[int, ...]
    run_id: str
    until_caught_up: bool = False
    seconds: float | None = None
    is_over: Callable[[], bool] = lambda: False
    fits: Callable[[tuple[int, ...]], bool] = lambda _: True


class Drain:
    """One shift. Exactly once whatever happens: the offsets move in the transaction of the rows. Safe to run twice at the same time,
    to kill, and to repeat."""

    def __init__(
        self,
        settings: Settings,
        shift: Shift,
        on_progress: Callable[[Progress], None] = lambda _: None,
        stop: threading.Event | None = None,
    ) -> None:
        self._settings = settings
        self._shift = shift
        self._on_progress = on_progress
        self._stop = stop or threading.Event()
        self._halt = threading.Event()
        self._unfit = self._over = False
        self._lock = threading.Lock()
        self._progress = Progress()
        self._last_commit = time.monotonic()
        count = min(settings.drain_lanes, len(shift.partitions))
        self._lanes = [
            Lane(
                settings,
                tuple(sorted(shift.partitions)[number::count]),
                run_id=shift.run_id,
                until_caught_up=shift.until_caught_up,
                halt=self._halt,
                on_commit=self._committed,
            )
            for number in range(count)
        ]

    def run(self) -> Progress:
        """Drain until the shift ends and return what was committed. Blocks; `on_progress` is called about once a second from this
        thread. Setting `stop` ends it within a batch or two.

        Raises:
            TopicMissingError, TopicRecreatedError, DataGoneError: see there; never retry by itself.
            TransientError, KafkaUnavailableError: servers did not come back before the shift ended. Retry with a new shift.
            Anything else: a bug or an unknown state; what was committed stays, nothing was dropped.
        """
        started = time.monotonic()
        with short_switches(), QuietCollector() as collector:
            try:
                for lane in self._lanes:
                    lane.thread.start()
                self._watch(started, collector)
            finally:
                self._halt.set()
                self._join()
        progress = self._snapshot(started)
        try:
            self._on_progress(progress)  # what was committed is reported, whatever follows
        finally:
            self._raise_errors(progress)
        return progress

    def _watch(self, started: float, collector: QuietCollector) -> None:
        """Until the shift ends: report, check that the topic is still the same one, collect garbage."""
        self._last_commit = reported = checked = time.monotonic()
        while any(lane.thread.is_alive() for lane in self._lanes):
            self._stop.wait(TICK_SECONDS)
            now = time.monotonic()
            if reason := self._reason_to_end(now, started):
                self._progress.ended = reason
                return
            if now - reported >= PROGRESS_SECONDS:
                reported = now
                self._on_progress(self._snapshot(started))
                self._over = self._shift.is_over()
            if now - checked >= TOPIC_CHECK_SECONDS:
                checked = now
                self._check_topic()
            collector.look(busy=now - self._last_commit < AT_WORK_SECONDS)
        gave_way = any(lane.state.gave_way for lane in self._lanes)
        self._progress.ended = "elsewhere" if gave_way else "caught_up"

    def _reason_to_end(self, now: float, started: float) -> str:
        if self._stop.is_set():
            return "stopped"
        if self._over:
            return "over"
        if any(lane.state.error is not None for lane in self._lanes):
            return "error"
        if self._shift.until_caught_up:
            return ""
        if self._unfit:
            return "other partitions"
        if now - started >= (self._settings.drain_shift_seconds if self._shift.seconds is None else self._shift.seconds):
            return "time"
        return "idle" if now - self._last_commit >= self._settings.drain_idle_seconds else ""

    def _check_topic(self) -> None:
        """A topic that is recreated while we read continues at our position without any error from Kafka. One that got more partitions
        wants another shift."""
        known = {lane.topic_id for lane in self._lanes if lane.topic_id}
        if (identity := self._identity()) is None:
            return  # the lanes notice, if it lasts
        if known and known != {identity.topic_id} and self._is_still_another(known):
            raise TopicRecreatedError(f"topic '{identity.topic}' was deleted and created anew during this drain; see `iot offsets show`")
        self._unfit = not self._shift.fits(identity.partitions)

    def _is_still_another(self, known: set[str]) -> bool:
        """A second look: a person is only called for a topic that stays another one."""
        identity = self._identity()
        return identity is not None and known != {identity.topic_id}

    def _identity(self) -> TopicIdentity | None:
        """The topic as it is now; None where Kafka does not answer. Raises TopicMissingError."""
        try:
            with TopicOffsets(self._settings, WORK_SECONDS) as topic:
                return topic.identity()
        except TopicMissingError:
            raise
        except KafkaUnavailableError:
            return None

    def _committed(self, outcome: Outcome) -> None:
        with self._lock:
            batch_counts.add(self._progress, outcome, time.time_ns() // 1000)
            self._last_commit = time.monotonic()

    def _snapshot(self, started: float) -> Progress:
        with self._lock:
            self._progress.seconds = time.monotonic() - started
            self._progress.retries = sum(lane.state.retries for lane in self._lanes)
            self._progress.notes = [note for lane in self._lanes for note in lane.state.notes]
            taken = copy.deepcopy(self._progress)
            self._progress.changed_partitions.clear()
            self._progress.changed_projects.clear()
        return taken

    def _join(self) -> None:
        deadline = time.monotonic() + STOP_SECONDS
        for lane in self._lanes:
            if lane.thread.ident is not None:
                lane.thread.join(max(0.0, deadline - time.monotonic()))
        if any(lane.thread.is_alive() for lane in self._lanes):
            raise DrainError(f"a lane did not stop within {STOP_SECONDS:g} s; its transaction is rolled back when this process ends")

    def _raise_errors(self, progress: Progress) -> None:
        errors = [lane.state.error for lane in self._lanes if lane.state.error is not None]
        if progress.ended not in ("stopped", "over"):
            errors += [lane.state.unresolved for lane in self._lanes if lane.state.unresolved is not None]
        if errors:
            for other in errors[1:]:
                log.error("drain lane failed", error=str(other))
            raise errors[0]


@contextmanager
def short_switches() -> Iterator[None]:
    """See SWITCH_INTERVAL_SECONDS."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)
