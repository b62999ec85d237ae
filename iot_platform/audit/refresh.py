"""Brings the database's picture of the ingest daemons up to date, in the order that rules out false alarms."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from psycopg2.extensions import connection as Connection  # noqa: N812

from iot_platform.audit import reports
from iot_platform.audit.dead_letters import import_dead_letters
from iot_platform.ingest_pages import IngestPageError, daemons
from iot_platform.kafka.errors import KafkaUnavailableError
from iot_platform.kafka.watermarks import TopicOffsets
from iot_platform.settings import Settings
from iot_platform.telemetry.drain import offsets
from iot_platform.telemetry.drain.partition_state import look
from iot_platform.telemetry.errors import DrainError

POLL_SECONDS: Final = 0.2


@dataclass
class Refreshed:
    """`lag`: records in Kafka that the drain has not taken yet. `notes` are worth a line; `doubts` mean that the truth may be another."""

    lag: int | None = None
    notes: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)


def refresh(settings: Settings, connection: Connection, wait_seconds: float, note: Callable[[str], None]) -> Refreshed:
    """Fetch the reports, then ask Kafka where it ends, wait until the drain has passed that, import dead letters, and only then store
    the reports: whatever they promise is then in the database, or lost. What cannot be refreshed keeps its last state."""
    result = Refreshed()
    fetched_at = _clock(connection)
    found = _fetch(settings, result, note)
    try:
        passed = _await_drain(settings, connection, wait_seconds, note, result)
        note("importing dead letters")
        result.notes += import_dead_letters(settings, connection)
    except (KafkaUnavailableError, DrainError) as error:
        connection.rollback()
        result.doubts.append(str(error))
        passed = False
    if passed:
        reports.store(connection, found, fetched_at)
    elif found:
        result.notes.append(
            "what the ingest daemons report now is not stored, because the drain has not come as far; their last reports are used"
        )
    return result


def _fetch(settings: Settings, result: Refreshed, note: Callable[[str], None]) -> list[reports.Report]:
    found = []
    for url in daemons(settings):
        note(f"asking the ingest daemon at {url}")
        try:
            found.append(reports.fetch(url))
        except IngestPageError as error:
            result.notes.append(f"{error}; its last report is used")
    return found


def _await_drain(settings: Settings, connection: Connection, seconds: float, note: Callable[[str], None], result: Refreshed) -> bool:
    """Whether the drain came to where Kafka's log ended at the beginning, within so many seconds.

    Raises:
        KafkaUnavailableError, DrainError: Kafka does not say.
    """
    give_up = time.monotonic() + seconds
    ends: dict[int, int] | None = None  # where the log ended when it was first seen to be the one that is drained
    while True:
        problems: list[str] = []
        if ends is None:
            with TopicOffsets(settings) as topic:
                drain = look(settings, connection, topic)
            offsets.check_identity(drain.identity, drain.rows)
            problems = drain.problems
            result.lag = drain.wants_run
            if not any(state.problem or state.unverified for state in drain.partitions.values()):
                ends = {partition: found.high for partition, found in drain.watermarks.items()}
                begins = {partition: found.low for partition, found in drain.watermarks.items()}
        else:
            rows = offsets.read(connection, settings.kafka_topic)
            result.lag = sum(max(0, end - (rows[p].next_offset if p in rows else begins[p])) for p, end in ends.items())
        if not result.lag:
            return True
        if time.monotonic() >= give_up:
            result.doubts += problems
            result.notes.append(f"{result.lag:,} records in Kafka wait for the drain")
            return False
        note(f"waiting for the drain: {result.lag:,} records")
        time.sleep(POLL_SECONDS)


def _clock(connection: Connection) -> Any:
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        row = cursor.fetchone()
    connection.commit()
    return row[0] if row else None
