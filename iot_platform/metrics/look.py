"""What every look of the exporter has in common: what becomes of a server that does not answer, and rows of a query."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psycopg2
from psycopg2.extensions import connection as Connection  # noqa: N812

from iot_platform.backup.errors import BackupError
from iot_platform.database import DatabaseError
from iot_platform.kafka.errors import KafkaUnavailableError
from iot_platform.logs import get_logger
from iot_platform.metrics.broker_look import BrokerUnavailableError
from iot_platform.metrics.values import Values

log = get_logger(__name__)


@dataclass(frozen=True)
class Look:
    """Something that is looked at again and again: at which server, how, and how many seconds after the look before."""

    server: str
    work: Callable[[], None]
    seconds: float


def take(values: Values, name: str, look: Look) -> None:
    """One look; a server that does not answer is a value of a gauge, not the end."""
    began = time.monotonic()
    try:
        look.work()
    except (BackupError, BrokerUnavailableError, DatabaseError, KafkaUnavailableError, psycopg2.Error) as error:
        away = _away(look.server, error)
        if values.get("iot_server_up").get((away,), 1):
            log.warning("server does not answer", server=away, look=name, error=" ".join(str(error).split()))
        values.update("iot_server_up", (away,), 0)
    else:
        values.update("iot_server_up", (look.server,), 1)
        values.update("iot_look_timestamp_seconds", (name,), time.time())
    values.update("iot_look_seconds", (name,), time.monotonic() - began)


def _away(server: str, error: Exception) -> str:
    """A look at Kafka's partitions asks the database, too."""
    if isinstance(error, KafkaUnavailableError):
        return "kafka"
    return server if server in ("dagster", "backups", "mqtt") else "database"


def rows(connection: Connection, query: str, **parameters: object) -> list[tuple[Any, ...]]:
    """All rows of a query. Raises psycopg2.Error."""
    with connection.cursor() as cursor:
        cursor.execute(query, parameters or None)
        found: list[tuple[Any, ...]] = cursor.fetchall()
    return found
