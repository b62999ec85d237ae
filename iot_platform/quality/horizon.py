"""The horizon: until when everything that was received is known to be in the database. Only up to there silence is not lag."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from psycopg2.extensions import connection as Connection  # noqa: N812

from iot_platform import ingest_pages
from iot_platform.kafka.errors import KafkaUnavailableError
from iot_platform.kafka.watermarks import TopicOffsets
from iot_platform.settings import Settings
from iot_platform.telemetry.drain.partition_state import look

BEHIND: Final = timedelta(seconds=120)
_NOW: Final = "SELECT clock_timestamp()"
_RECEIVED: Final = """
SELECT max(l.last_received_at) FROM ledger l
WHERE l.kind = 'drain' AND l.committed_at > now() - interval '7 days' AND l.last_received_at <= %s"""
_DAEMONS: Final = "SELECT count(*) FROM ingest_report WHERE fetched_at > now() - interval '7 days'"


@dataclass(frozen=True)
class Horizon:
    """`at`: see the module. `live`: nothing is known to keep messages from coming through; silence counts."""

    at: datetime
    live: bool
    reason: str = ""


def find_horizon(settings: Settings, connection: Connection) -> Horizon:
    """Ask Kafka what waits for the drain, and the ingest daemons (if any ever reported) whether they receive. Where nothing waits the
    horizon is now, else what was received last; where a partition cannot simply go on (another topic, a log that was cut), something waits.
    Blocks some seconds at most; commits."""
    now = _one(connection, _NOW)
    try:
        with TopicOffsets(settings) as topic:
            drain = look(settings, connection, topic)
    except KafkaUnavailableError:
        return Horizon(_one(connection, _RECEIVED, now) or now, live=False, reason="Kafka does not answer")
    received = (drain.wants_run and _one(connection, _RECEIVED, now)) or now
    if now - received > BEHIND:
        reason = next(iter(drain.problems), f"{drain.wants_run:,} records in Kafka wait for the drain")
        return Horizon(received, live=False, reason=reason)
    if _one(connection, _DAEMONS) and (silent := _not_ready(settings)):
        return Horizon(received, live=False, reason=f"the ingest daemon at {silent} is not ready")
    return Horizon(received, live=True)


def _not_ready(settings: Settings) -> str | None:
    """The first daemon that does not say it is ready."""
    return next((url for url in ingest_pages.daemons(settings) if not ingest_pages.is_ready(url)), None)


def _one(connection: Connection, query: str, *parameters: object) -> datetime:
    with connection.cursor() as cursor:
        cursor.execute(query, parameters)
        row = cursor.fetchone()
    connection.commit()
    return row[0]  # type: ignore[index,no-any-return]
