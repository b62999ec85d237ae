"""The cuts that the ledger knows of: when Kafka's log turned out to be another one than what was drained."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from psycopg2.extensions import connection as Connection  # noqa: N812

_CUTS: Final = """
SELECT committed_at, kafka_partition, from_offset, to_offset, log_generation, leader_epoch, coalesce(detail, '') FROM ledger
WHERE kind = 'log_cut' AND kafka_topic = %s AND committed_at >= now() - %s ORDER BY committed_at DESC LIMIT 100"""


@dataclass(frozen=True)
class KnownCut:
    """A row of ledger of kind log_cut."""

    committed_at: datetime
    partition: int
    cut_at: int
    drained_to: int
    generation: int
    leader_epoch: int | None
    detail: str

    @property
    def line(self) -> str:
        """When and what, as a sentence for people."""
        return f"{self.committed_at:%Y-%m-%d %H:%M:%S} UTC: {self.detail}"


def cuts_since(connection: Connection, topic: str, period: timedelta = timedelta(days=365)) -> list[KnownCut]:
    """The cuts of a topic's partitions within the period up to now, newest first, at most 100. Commits."""
    with connection, connection.cursor() as cursor:
        cursor.execute(_CUTS, (topic, period))
        return [KnownCut(*row) for row in cursor.fetchall()]
