"""What an audit found: the rows of its proofs, and every difference by its exact place."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Self

from iot_platform.telemetry.drain.known_cuts import KnownCut

MAX_KEPT: Final = 1_000
"""Differences that are kept by name, per proof; more are only counted."""


@dataclass(frozen=True)
class Hole:
    """Sequences `first` to `last` of an MQTT connection that are nowhere, and when their neighbours were received (None: there is none).
    `topics`: up to five of the ten messages on either side; those of the missing ones are not known."""

    first: int
    last: int
    after: datetime | None
    before: datetime | None
    topics: tuple[str, ...] = ()

    @classmethod
    def of(cls, item: Mapping[str, Any]) -> Self:
        """From the JSON of audit_sequences."""
        after, before = (datetime.fromisoformat(item[name]).astimezone(UTC) if item[name] else None for name in ("after", "before"))
        return cls(item["from"], item["to"], after, before, tuple(item["topics"]))

    @property
    def where(self) -> str:
        """A sentence for people: between which times (to the second, UTC), among which topics."""
        after = f"{self.after:%Y-%m-%d %H:%M:%S}" if self.after else "the connection's beginning"
        before = f"{self.before:%Y-%m-%d %H:%M:%S}" if self.before else "now"
        return f"received between {after} and {before} UTC" + (f", among messages of {', '.join(self.topics)}" if self.topics else "")


@dataclass(frozen=True)
class Difference:
    """One thing that does not add up. `kind` is the proof that found it: offsets, sequences, accounting, daemon or sinks. `holes`: of
    missing sequences, the first 20 stretches."""

    kind: str
    place: str
    expected: int | None
    found: int | None
    text: str
    holes: tuple[Hole, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        holes = [
            {
                "first": hole.first,
                "last": hole.last,
                "topics": list(hole.topics),
                **{name: time and time.isoformat() for name, time in (("after", hole.after), ("before", hole.before))},
            }
            for hole in self.holes
        ]
        return vars(self) | {"holes": holes}


@dataclass(frozen=True)
class PartitionRow:
    """Offsets of one generation of a Kafka partition's log that were committed in the window. Fields as in audit_offsets."""

    topic: str
    partition: int
    from_offset: int
    to_offset: int
    expected: int
    found: int
    generation: int = 0


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
class SinkRow:
    """What a second store followed of a Kafka partition. Fields as in audit_sinks."""

    sink: str
    topic: str
    partition: int
    generation: int
    from_offset: int
    to_offset: int
    stored: int
    followed: int
    removed: int
    waiting: int
    points: int
    sent: int
    refused: int


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
    sinks: list[SinkRow] = field(default_factory=list)
    accepted: list[AcceptedLoss] = field(default_factory=list)
    cuts: list[KnownCut] = field(default_factory=list)
    """When Kafka's log turned out to have been cut; what was lost by it is among the missing sequences."""
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
            "differences": [item.as_json() for item in self.differences],
            "counts": self.counts,
            "partitions": [vars(row) for row in self.partitions],
            "connections": [vars(row) for row in self.connections],
            "hours": hours,
            "daemons": [vars(row) for row in self.daemons],
            "sinks": [vars(row) for row in self.sinks],
            "accepted_losses": [vars(row) for row in self.accepted],
            "log_cuts": [vars(row) for row in self.cuts],
            "notes": self.notes,
            "doubts": self.doubts,
        }
