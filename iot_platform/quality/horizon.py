"""Until when everything that was received is known to be in the database: only up to there can silence be told from lag."""

import contextlib
import urllib.request
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from psycopg2.extensions import connection as Connection  # noqa: N812

from iot_platform.resources.watermarks import KafkaUnavailableError, TopicOffsets
from iot_platform.settings import Settings

BEHIND: Final = timedelta(seconds=120)
_NOW: Final = "SELECT clock_timestamp()"
_OFFSETS: Final = "SELECT kafka_partition, next_offset FROM kafka_offset WHERE topic = %s"
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
    """Ask Kafka for the drain's lag, and the ingest daemons (if any ever reported) whether they receive. Without lag the horizon is now,
    else what was received last. Blocks some seconds at most; commits."""
    now = _one(connection, _NOW)
    lag = _lag(settings, connection)
    received = now if lag == 0 else _one(connection, _RECEIVED, now) or now
    if lag is None:
        return Horizon(received, live=False, reason="Kafka does not answer")
    if now - received > BEHIND:
        return Horizon(received, live=False, reason=f"{lag:,} records in Kafka wait for the drain")
    if _one(connection, _DAEMONS) and (silent := _not_ready(settings)):
        return Horizon(received, live=False, reason=f"the ingest daemon at {silent} is not ready")
    return Horizon(received, live=True)


def _lag(settings: Settings, connection: Connection) -> int | None:
    try:
        with TopicOffsets(settings) as topic:
            marks = topic.watermarks(topic.partitions())
    except KafkaUnavailableError:
        return None
    with connection.cursor() as cursor:
        cursor.execute(_OFFSETS, (settings.kafka_topic,))
        stored: dict[int, int] = dict(cursor.fetchall())
    connection.commit()
    return sum(max(0, end - stored.get(partition, marks.begin[partition])) for partition, end in marks.end.items())


def _not_ready(settings: Settings) -> str | None:
    """The first daemon that does not say it is ready."""
    for url in settings.ingest_http_urls:
        ready = False
        with contextlib.suppress(OSError, ValueError), urllib.request.urlopen(f"{url}/readyz", timeout=3) as answer:  # noqa: S310 - as set
            ready = answer.status == 200
        if not ready:
            return url
    return None


def _one(connection: Connection, query: str, *parameters: object) -> datetime:
    with connection.cursor() as cursor:
        cursor.execute(query, parameters)
        row = cursor.fetchone()
    connection.commit()
    return row[0]  # type: ignore[index,no-any-return]
