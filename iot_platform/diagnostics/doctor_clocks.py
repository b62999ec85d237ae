"""What `iot doctor` says about clocks: of this host, the database, Kafka, and the ingest daemons' hosts."""

import socket
import time
from collections.abc import Iterator
from contextlib import closing
from email.utils import parsedate_to_datetime
from typing import Final

import psycopg2
from psycopg2.extensions import connection as Connection  # noqa: N812

from iot_platform import ingest_pages
from iot_platform.diagnostics.finding import Finding
from iot_platform.settings import Settings

TOLERANCE_SECONDS: Final = 2.0
_OFFSET: Final = "iot_ingest_clock_offset_seconds"


def clock_findings(settings: Settings, *, database: bool, kafka: bool, ingest: bool) -> Iterator[Finding]:
    """One for each clock that can be asked; those of servers that do not answer are left to the findings that say so."""
    if database:
        yield from _database(settings)
    if kafka:
        yield from _kafka(settings)
    if ingest:
        for url in ingest_pages.daemons(settings):
            yield from _daemon(url)


def _judged(whose: str, offset: float, remedy: str, *, among: str) -> Finding:
    if abs(offset) <= TOLERANCE_SECONDS:
        return Finding("clock", "ok", f"{whose} agrees with {among} within {max(abs(offset), 0.1):.1f} s")
    how = f"{abs(offset):,.1f} s {'ahead of' if offset > 0 else 'behind'} {among}"
    text = f"{whose} is {how}: times of receipt, freshness and the audit's windows are wrong"
    return Finding("clock", "risk", text, f"synchronise both (chrony or systemd-timesyncd): {remedy}")


def _database(settings: Settings) -> Iterator[Finding]:
    from iot_platform.database import DatabaseError, connect

    try:
        with closing(connect(settings, "writer", "iot-doctor")) as connection:
            offset = database_offset(connection)
    except (DatabaseError, psycopg2.Error):
        return
    yield _judged("the database's clock", offset, "its host and this one", among=f"that of {socket.gethostname()}")


def database_offset(connection: Connection) -> float:
    """The database's clock minus ours in seconds, as small as the time of the answer allows. Raises psycopg2.Error."""
    with connection.cursor() as cursor:
        began = time.time()
        cursor.execute("SELECT extract(epoch FROM clock_timestamp())::float8")
        ended = time.time()
        (theirs,) = cursor.fetchone() or (began,)
    return _least(float(theirs), began, ended)


def _least(theirs: float, began: float, ended: float) -> float:
    """The least difference that explains their time, taken somewhere between two of ours."""
    return max(theirs - ended, 0.0) + min(theirs - began, 0.0)


def _kafka(settings: Settings) -> Iterator[Finding]:
    """Kafka tells no time. But it stamps each record (LogAppendTime), and none of them can be from the future."""
    from iot_platform.kafka.errors import KafkaUnavailableError, TopicMissingError
    from iot_platform.kafka.watermarks import TopicOffsets

    try:
        with TopicOffsets(settings) as topic:
            newest = topic.newest()
    except (KafkaUnavailableError, TopicMissingError):
        return
    if newest is not None and newest - time.time() > TOLERANCE_SECONDS:
        yield _judged("Kafka's clock", newest - time.time(), "Kafka's host and this one", among=f"that of {socket.gethostname()}")


def _daemon(url: str) -> Iterator[Finding]:
    try:
        began = time.time()
        date = ingest_pages.date(url)
        ended = time.time()
        offsets = [value for name, _, value in ingest_pages.labelled(url) if name == _OFFSET]
    except ingest_pages.IngestPageError:
        return
    if date is not None:
        theirs = parsedate_to_datetime(date).timestamp()
        # HTTP's Date leaves out the fraction.
        offset = max(theirs - ended, 0.0) + min(theirs + 1 - began, 0.0)
        yield _judged(f"the clock of the daemon at {url}", offset, "its host and this one", among=f"that of {socket.gethostname()}")
    for offset in offsets:
        yield _judged(f"the clock of the daemon at {url}", offset, "its host and Kafka's", among="Kafka's")
