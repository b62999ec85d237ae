"""Counts of stored and quarantined messages that only grow: summed up once, then carried on from the ledger."""

from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from psycopg2.extensions import connection as Connection  # noqa: N812

from iot_platform.database import connect
from iot_platform.settings import Settings

_LOOK_BACK: Final = "5 minutes"
"""Longer than a batch takes from its ledger row to its commit: one that appears late is counted then."""
_RECENT: Final = f"""
SELECT l.batch_id, l.messages, l.quarantined, l.kind = 'drain' FROM ledger l
WHERE l.committed_at > %(since)s::timestamptz - interval '{_LOOK_BACK}' AND l.kind <> 'accepted_loss'"""  # noqa: S608 - our own constant
_REASONS: Final = """
SELECT q.reason, count(*) FROM ledger l JOIN quarantine q ON q.kafka_partition = l.kafka_partition AND q.kafka_offset >= l.from_offset
    AND q.kafka_offset < l.to_offset AND q.received_at BETWEEN l.first_received_at AND l.last_received_at
WHERE l.committed_at > %(since)s::timestamptz - interval '5 minutes' AND l.batch_id = ANY (%(batches)s) GROUP BY 1"""


@dataclass
class Totals:
    """`stored`: rows of message; `quarantined`: rows of quarantine by reason, as they came in. `sequence_gaps`, `sequence_missing`: jumps
    of the sequence numbers of Sparkplug B edge nodes, and how many numbers they left out."""

    stored: int = 0
    quarantined: dict[str, int] = field(default_factory=dict)
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
                recent = cursor.fetchall()
                cursor.execute("SELECT coalesce(sum(seq_gaps), 0)::bigint, coalesce(sum(seq_missing), 0)::bigint FROM sparkplug_node")
                gaps = cursor.fetchone() or (0, 0)
            if self._at is None:
                self._begin(connection)
            else:
                self._carry_on(connection, [row for row in recent if row[0] not in self._seen])
            self._seen, self._at = {row[0] for row in recent}, now
            self.sequence_gaps, self.sequence_missing = gaps

    def _begin(self, connection: Connection) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT coalesce(sum(messages), 0)::bigint FROM accounting_1h")
            row = cursor.fetchone()
            cursor.execute("SELECT reason, count(*) FROM quarantine GROUP BY 1")
            self.quarantined = dict(cursor.fetchall())
        self.stored = row[0] if row else 0

    def _carry_on(self, connection: Connection, new: list[tuple[int, int, int, bool]]) -> None:
        reasons: list[tuple[str, int]] = []
        if bad := [batch for batch, _, quarantined, drained in new if drained and quarantined]:
            with connection.cursor() as cursor:
                cursor.execute(_REASONS, {"since": self._at, "batches": bad})
                reasons = cursor.fetchall()
        for reason, count in reasons:
            self.quarantined[reason] = self.quarantined.get(reason, 0) + count
        self.stored += sum(max(0, messages) for _, messages, _, _ in new)
