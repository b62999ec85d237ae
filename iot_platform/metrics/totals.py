"""Counts of messages and measurements that only grow: summed up once, then carried on from the ledger."""

from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, NamedTuple

from psycopg2.extensions import connection as Connection  # noqa: N812

from iot_platform.database import connect
from iot_platform.metrics.definitions import FRESHNESS_BUCKETS
from iot_platform.metrics.values import Histogram
from iot_platform.settings import Settings
from iot_platform.telemetry.decode.reasons import Reason

_LOOK_BACK: Final = "5 minutes"
"""Longer than a batch takes from its ledger row to its commit: one that appears late is counted then."""
_RECENT: Final = f"""
SELECT l.batch_id, l.messages, l.quarantined, l.kind = 'drain', l.measurements, l.measurement_conflicts,
    extract(epoch FROM l.committed_at - l.first_received_at)::float8, extract(epoch FROM l.committed_at - l.last_received_at)::float8
FROM ledger l
WHERE l.committed_at > %(since)s::timestamptz - interval '{_LOOK_BACK}' AND l.kind <> 'accepted_loss'"""  # noqa: S608 - our own constant
_REASONS: Final = f"""
SELECT q.reason, count(*) FROM ledger l JOIN quarantine q ON q.kafka_partition = l.kafka_partition AND q.kafka_offset >= l.from_offset
    AND q.kafka_offset < l.to_offset AND q.received_at BETWEEN l.first_received_at AND l.last_received_at
WHERE l.committed_at > %(since)s::timestamptz - interval '{_LOOK_BACK}' AND l.batch_id = ANY (%(batches)s)
GROUP BY 1"""  # noqa: S608 - our own constant

_BEGIN: Final = """
SELECT coalesce(sum(messages), 0)::bigint, coalesce(sum(measurements), 0)::bigint, coalesce(sum(measurement_conflicts), 0)::bigint
FROM accounting_1h"""
_STEPS: Final = tuple(0.05 + 0.1 * step for step in range(10))
"""A batch's messages are taken as evenly spread between its first and its last receipt."""


class Batch(NamedTuple):
    """A row of the ledger. `oldest`, `newest`: seconds from the first and last receipt to the commit."""

    batch_id: int
    messages: int
    quarantined: int
    drained: bool
    measurements: int
    conflicts: int
    oldest: float | None
    newest: float | None


@dataclass
class Totals:
    """`stored`: rows of message; `quarantined`: rows of quarantine by reason, as they came in. `measurements`: stored ones; `conflicts`:
    those that were not, because of a conflict. `freshness`: drained messages since the start, by time from receipt to commit.
    `sequence_gaps`, `sequence_missing`: jumps of the sequence numbers of Sparkplug B edge nodes, and how many numbers they left out."""

    stored: int = 0
    measurements: int = 0
    conflicts: int = 0
    quarantined: dict[str, int] = field(default_factory=lambda: dict.fromkeys(map(str, Reason), 0))
    freshness: Histogram = field(default_factory=lambda: Histogram(FRESHNESS_BUCKETS))
    sequence_gaps: int = 0
    sequence_missing: int = 0
    _seen: set[int] = field(default_factory=set)
    _at: datetime | None = None

    def update(self, settings: Settings) -> None:
        """Carry on. Raises DatabaseError, psycopg2.Error: nothing is counted then, and nothing is missed the next time."""
        with closing(connect(settings, application_name="iot-metrics")) as connection:
            connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
            with connection.cursor() as cursor:
                cursor.execute("SELECT now()")
                row = cursor.fetchone()
                now: datetime | None = row[0] if row else None
                cursor.execute(_RECENT, {"since": self._at or now})
                recent = [Batch(*row) for row in cursor.fetchall()]
                cursor.execute("SELECT coalesce(sum(seq_gaps), 0)::bigint, coalesce(sum(seq_missing), 0)::bigint FROM sparkplug_node")
                gaps = cursor.fetchone() or (0, 0)
            if self._at is None:
                self._begin(connection)
            else:
                self._carry_on(connection, [batch for batch in recent if batch.batch_id not in self._seen])
            self._seen, self._at = {batch.batch_id for batch in recent}, now
            self.sequence_gaps, self.sequence_missing = gaps

    def _begin(self, connection: Connection) -> None:
        with connection.cursor() as cursor:
            cursor.execute(_BEGIN)
            self.stored, self.measurements, self.conflicts = cursor.fetchone() or (0, 0, 0)
            cursor.execute("SELECT reason, count(*) FROM quarantine GROUP BY 1")
            self.quarantined |= dict(cursor.fetchall())

    def _carry_on(self, connection: Connection, new: list[Batch]) -> None:
        reasons: list[tuple[str, int]] = []
        if bad := [batch.batch_id for batch in new if batch.drained and batch.quarantined]:
            with connection.cursor() as cursor:
                cursor.execute(_REASONS, {"since": self._at, "batches": bad})
                reasons = cursor.fetchall()
        for reason, count in reasons:
            self.quarantined[reason] = self.quarantined.get(reason, 0) + count
        for batch in new:
            self.stored += max(0, batch.messages)
            self.measurements += max(0, batch.measurements)
            self.conflicts += max(0, batch.conflicts)
            if batch.drained and batch.oldest is not None and batch.newest is not None:
                records = batch.messages + batch.quarantined
                for place, step in enumerate(_STEPS):
                    whole = records * (place + 1) // len(_STEPS) - records * place // len(_STEPS)
                    self.freshness.add(max(0.0, batch.newest + (batch.oldest - batch.newest) * step), whole)
