"""What a drain has done so far, per Kafka partition and per project."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from iot_platform.telemetry.counters import BRAKE_SHARE, BRAKE_STREAK, Counts

BINS_PER_DECADE: Final = 20
DECADES: Final = 9
"""Freshness is kept as a histogram from 1 ms to 10^6 s, 20 bins a decade: quantiles are exact to 6 %."""
BRAKE_WINDOW: Final = 1_000


@dataclass
class PartitionProgress(Counts):
    """One Kafka partition: offsets [from_offset, to_offset) are committed by this drain."""

    from_offset: int = 0
    to_offset: int = 0
    batches: int = 0
    first_received_at: int | None = None  # µs since the epoch
    last_received_at: int | None = None
    last_committed_at: int | None = None
    bad_streak: int = 0  # quarantined records in a row, up to now
    longest_bad_streak: int = 0
    worst_bad_share: float = 0.0  # of any window of at least BRAKE_WINDOW records
    ambiguous_times: int = 0  # timestamps without a zone that the zone's clocks showed twice
    skipped_times: int = 0  # and never
    _window_records: int = 0
    _window_bad: int = 0
    _freshness: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS_PER_DECADE * DECADES, np.int64), repr=False)

    @property
    def freshness_p50_seconds(self) -> float | None:
        """Median time from reception to commit."""
        return quantile(self._freshness, 0.5)

    @property
    def freshness_p95_seconds(self) -> float | None:
        """95th percentile of the time from reception to commit."""
        return quantile(self._freshness, 0.95)

    @property
    def poisoned(self) -> bool:
        """More than 5 % of a window of 1,000 records, or 1,000 in a row, were quarantined."""
        return self.worst_bad_share > BRAKE_SHARE or self.longest_bad_streak >= BRAKE_STREAK

    def note_quality(self, bad: npt.NDArray[np.bool_]) -> None:
        """Judge the next records, in offset order: true means quarantined."""
        if not len(bad):
            return
        good = np.flatnonzero(~bad)
        if len(good):
            gaps = np.diff(np.concatenate(([-1], good, [len(bad)]))) - 1
            self.longest_bad_streak = max(self.longest_bad_streak, self.bad_streak + int(gaps[0]), int(gaps.max()))
            self.bad_streak = int(gaps[-1])
        else:
            self.bad_streak += len(bad)
            self.longest_bad_streak = max(self.longest_bad_streak, self.bad_streak)
        self._window_records += len(bad)
        self._window_bad += int(np.count_nonzero(bad))
        if self._window_records >= BRAKE_WINDOW:
            self.worst_bad_share = max(self.worst_bad_share, self._window_bad / self._window_records)
            self._window_records = self._window_bad = 0

    def note_freshness(self, ages_us: npt.NDArray[np.int64]) -> None:
        """Add times from reception to commit."""
        bins = np.log10(np.maximum(ages_us, 1_000) / 1_000) * BINS_PER_DECADE
        self._freshness += np.bincount(np.minimum(bins.astype(np.int64), len(self._freshness) - 1), minlength=len(self._freshness))


@dataclass
class ProjectProgress(Counts):
    """One project (tenant and project are empty where a topic names none)."""

    tenant: str = ""
    project: str = ""
    last_received_at: int | None = None
    offsets: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Kafka partition → first and last offset (inclusive) of its records."""


@dataclass
class Progress:
    """Cumulative figures of one drain. `changed_*` is what moved since the last call of on_progress."""

    partitions: dict[int, PartitionProgress] = field(default_factory=dict)
    projects: dict[tuple[str, str], ProjectProgress] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)
    changed_partitions: set[int] = field(default_factory=set)
    changed_projects: set[tuple[str, str]] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)
    retries: int = 0
    seconds: float = 0.0
    ended: str = ""
    """Why the drain ended: time, over, idle, caught_up, stopped, other partitions, error or elsewhere; empty while it runs."""

    @property
    def messages(self) -> int:
        """Records committed, quarantined ones included."""
        return sum(item.messages + item.quarantined for item in self.partitions.values())

    @property
    def quarantined(self) -> int:
        """Records quarantined."""
        return sum(item.quarantined for item in self.partitions.values())

    @property
    def bad_share(self) -> float:
        """Share of quarantined records of all."""
        return self.quarantined / self.messages if self.messages else 0.0

    @property
    def poisoned(self) -> bool:
        """Whether the poison brake's limits were passed in any partition."""
        return any(item.poisoned for item in self.partitions.values())


def quantile(histogram: npt.NDArray[np.int64], share: float) -> float | None:
    """Seconds below which `share` of the entries lie; None without entries."""
    total = int(histogram.sum())
    if not total:
        return None
    index = int(np.searchsorted(np.cumsum(histogram), share * total))
    return float(10 ** ((index + 0.5) / BINS_PER_DECADE) / 1000)
