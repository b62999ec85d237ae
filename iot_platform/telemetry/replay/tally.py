"""What a replay did, or would do: counts by outcome, by reason before and after, by project, with samples of what stays bad."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from iot_platform.telemetry.drain.catalog import Project

SAMPLES: Final = 10
STORED: Final = "message"
"""What stands for a reason where there is none any more."""
SUMS: Final = (
    *("read", "moved", "moved_copies", "still_bad", "updated", "complete", "completed", "refused", "elsewhere"),
    *("restored", "restored_bad", "lost", "measurements", "measurement_duplicates", "measurement_conflicts"),
)


@dataclass(frozen=True)
class Sample:
    """A quarantined message that stays, or a message that the rules of today would refuse."""

    partition: int
    offset: int
    reason: str
    detail: str


@dataclass
class Tally:
    """Sums over records; `ended` is "" while it works, then done or stopped."""

    read: int = 0
    moved: int = 0  # from quarantine into message, redelivered copies included
    moved_copies: int = 0  # of these, redelivered copies: they have no measurements
    still_bad: int = 0  # quarantined, and staying there
    updated: int = 0  # of these, with reason, detail or project brought up to date
    complete: int = 0  # messages that lack nothing
    completed: int = 0  # messages that got measurements they lacked
    refused: int = 0  # messages that the rules of today would quarantine: left as they are
    elsewhere: int = 0  # moved or restored by another replay before we could
    restored: int = 0  # found in neither table, fetched from Kafka
    restored_bad: int = 0  # of these, into quarantine
    lost: int = 0  # found in neither table, and not to be had from Kafka: deleted by retention, or lost
    measurements: int = 0  # inserted
    measurement_duplicates: int = 0  # of moved and restored messages: the same value is there
    measurement_conflicts: int = 0  # not written because another value came first
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)  # quarantined records: reason before and after
    projects: Counter[Project] = field(default_factory=Counter)  # moved, completed and restored messages
    samples: list[Sample] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    ended: str = ""

    def add(self, other: "Tally") -> None:
        """Add a batch."""
        for name in SUMS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.reasons.update(other.reasons)
        self.projects.update(other.projects)
        self.samples += other.samples[: SAMPLES - len(self.samples)]
        self.notes += other.notes

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            **{name: getattr(self, name) for name in SUMS},
            "reasons": [{"before": before, "after": after, "messages": count} for (before, after), count in self.reasons.most_common()],
            "projects": [{"tenant": tenant, "project": name, "messages": count} for (tenant, name), count in self.projects.most_common()],
            "samples": [vars(sample) for sample in self.samples],
            "notes": self.notes,
            "ended": self.ended,
        }
