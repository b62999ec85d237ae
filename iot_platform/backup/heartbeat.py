"""What the database held, noted outside of it: beside the drained offsets in Kafka (kafka/group_offsets.py), once a minute.

A database that was restored says of itself that all is well; only somebody else knows what it had.
"""

import json
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Final

import psycopg2
from psycopg2.extensions import connection as Connection  # noqa: N812

from iot_platform.database import connect
from iot_platform.kafka.group_offsets import read_noted
from iot_platform.settings import Settings
from iot_platform.telemetry.drain import offsets

UNKNOWN: Final = ("", 0)
_SERVER: Final = """
SELECT (SELECT system_identifier::text FROM pg_control_system()), ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int"""


@dataclass(frozen=True)
class Heartbeat:
    """`offsets`: next offset by partition; `committed_at`: when the newest row among them was, `at`: when this was noted, both in seconds
    since the epoch; `system_id`, `timeline`: which PostgreSQL it was, or UNKNOWN."""

    offsets: Mapping[int, int]
    committed_at: float
    at: float
    system_id: str
    timeline: int


def remarks(connection: Connection, committed_at: Mapping[int, float]) -> Callable[[int], str]:
    """Partition → what is noted beside its offset. Asks the database at the first call only.

    Raises (then):
        psycopg2.OperationalError: it does not answer.
    """
    server: list[tuple[str, int]] = []

    def remark(partition: int) -> str:
        if not server:
            server.append(_server(connection))
        return text_of(*server[0], committed_at.get(partition, 0.0))

    return remark


def text_of(system_id: str, timeline: int, committed_at: float) -> str:
    """A remark as it is noted, now."""
    return json.dumps({"system": system_id, "timeline": timeline, "committed": committed_at, "at": round(time.time(), 3)})


def read_heartbeat(settings: Settings) -> Heartbeat | None:
    """What was noted last; None where nothing was (IOT_KAFKA_DRAIN_GROUP=off, another Kafka, a week ago).

    Raises:
        KafkaUnavailableError: Kafka does not answer.
    """
    noted = read_noted(settings)
    said = {partition: json.loads(text) for partition, (_, text) in noted.items() if text.startswith("{")}
    if not said:
        return None
    newest = max(said.values(), key=lambda item: item["at"])
    return Heartbeat(
        {partition: offset for partition, (offset, _) in noted.items()},
        max(item["committed"] for item in said.values()),
        newest["at"],
        newest["system"],
        newest["timeline"],
    )


def read_live(settings: Settings) -> Heartbeat:
    """What the running database holds now, to compare a copy of it with.

    Raises:
        DatabaseError, psycopg2.Error: it does not answer.
    """
    with closing(connect(settings, application_name="iot-backup")) as connection:
        rows = offsets.read(connection, settings.kafka_topic)
        system_id, timeline = _server(connection)
    committed_at = max((row.updated_at for row in rows.values()), default=0.0)
    return Heartbeat({partition: row.next_offset for partition, row in rows.items()}, committed_at, time.time(), system_id, timeline)


def _server(connection: Connection) -> tuple[str, int]:
    """Unknown, where a managed service keeps it to itself: the drain does not stop for that."""
    try:
        with connection.cursor() as cursor:
            cursor.execute(_SERVER)
            row = cursor.fetchone()
    except (psycopg2.OperationalError, psycopg2.InterfaceError):
        raise
    except psycopg2.Error:
        connection.rollback()
        return UNKNOWN
    connection.commit()
    return (str(row[0]), int(row[1])) if row else UNKNOWN
