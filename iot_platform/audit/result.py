"""What an audit found: the rows of its proofs, and every difference by its exact place."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

MAX_KEPT: Final = 1_000
"""Differences that are kept by name, per proof; more are only counted."""


@dataclass(frozen=True)
class Difference:
    """One thing that does not add up. `kind` is the proof that found it: offsets, sequences, accounting or daemon."""

    kind: str
    place: str
    expected: int | None
    found: int | None
    text: str


@dataclass(frozen=True)
class PartitionRow:
    """Offsets of one Kafka partition that were committed in the window. Fields as in audit_offsets."""

    topic: str
    partition: int
    from_offset: int
    to_offset: int
    expected: int
    found: int


@dataclass(frozen=True)
class ConnectionRow:
    """One MQTT connection. Fields as in audit_sequences; `reported_at` is None when no daemon ever reported it."""

    client_id: str
    number: int
    reported_at: datetime | None
    checked_from: int
    checked_to: int
    received: int
    stored: int
    duplicates: int
    quarantined: int
    dead_lettered: int
    in_flight: int
    unacknowledged: int
    missing: int
    repeated: int
    unmarked: int
    problem: str | None


@dataclass
class Tally:
    """Sums of audit_hours for a tenant (or one of its projects) and an hour."""

    messages: int = 0
    stored_messages: int = 0
    duplicates: int = 0
    quarantined: int = 0
    measurements: int = 0
    measurement_conflicts: int = 0
    difference: int = 0
    reasons: dict[str, int] = field(default_factory=dict)

    def add(self, other: "Tally") -> None:
        """Add the other's counters to these."""
        for name in ("messages", "stored_messages", "duplicates", "quarantined", "measurements", "measurement_conflicts", "difference"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for reason, count in other.reasons.items():
            self.reasons[reason] = self.reasons.get(reason, 0) + count


@dataclass(frozen=True)
class DaemonRow:
    """The last report of one ingest daemon. Fields as in audit_daemon."""

    client_id: str
    reported_at: datetime
    fetched_at: datetime
    received: int
    delivered: int
    dead_lettered: int
    spooled: int
    in_flight: int
    given_up: int
    missing: int
    sessions_lost: int
    difference: int
    problem: str | None


@dataclass(frozen=True)
class AcceptedLoss:
    """A loss that somebody accepted with `iot offsets accept`: shown, and no difference."""

    committed_at: datetime
    topic: str
    partition: int
    from_offset: int
    to_offset: int
    detail: str
    accepted_by: str


@dataclass
class AuditResult:
    """All of it. `doubts` say why the result is not the whole truth: a server that did not answer."""

    since: datetime | None
    at: datetime
    partitions: list[PartitionRow] = field(default_factory=list)
    connections: list[ConnectionRow] = field(default_factory=list)
    hours: dict[tuple[str, str, datetime], Tally] = field(default_factory=dict)
    """By tenant, project (empty unless one tenant was asked for) and hour."""
    daemons: list[DaemonRow] = field(default_factory=list)
    accepted: list[AcceptedLoss] = field(default_factory=list)
    lag: int | None = None
    """Records in Kafka that wait for the drain; None if Kafka did not say."""
    differences: list[Difference] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    """Number of differences by kind, those included that are not kept."""
    notes: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing differs."""
        return not self.counts

    def add(self, difference: Difference) -> None:
        """Count a difference, and keep the first MAX_KEPT of its kind."""
        seen = self.counts.get(difference.kind, 0)
        self.counts[difference.kind] = seen + 1
        if seen < MAX_KEPT:
            self.differences.append(difference)

    def sequence_sums(self) -> dict[str, int]:
        """The verdict's numbers: received = stored + duplicates + quarantined + dead_lettered + in_flight + unacknowledged + missing."""
        names = ("received", "stored", "duplicates", "quarantined", "dead_lettered", "in_flight", "unacknowledged", "missing")
        return {name: sum(getattr(row, name) for row in self.connections) for name in names}

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        hours = [
            {"tenant": tenant, "project": project or None, "hour": hour.isoformat(), **vars(tally)}
            for (tenant, project, hour), tally in sorted(self.hours.items())
        ]
        return {
            "ok": self.ok,
            "since": self.since.isoformat() if self.since else None,
            "at": self.at.isoformat(),
            "sums": self.sequence_sums(),
            "lag": self.lag,
            "differences": [vars(item) for item in self.differences],
            "counts": self.counts,
            "partitions": [vars(row) for row in self.partitions],
            "connections": [vars(row) for row in self.connections],
            "hours": hours,
            "daemons": [vars(row) for row in self.daemons],
            "accepted_losses": [vars(row) for row in self.accepted],
            "notes": self.notes,
            "doubts": self.doubts,
        }
