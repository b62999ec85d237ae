"""Opens connections to the platform's database with timeouts that end hung sessions instead of leaving locks behind."""

from typing import Any, Final, Literal
from urllib.parse import urlsplit

import psycopg2
from psycopg2.extensions import connection as Connection  # noqa: N812
from psycopg2.extensions import parse_dsn

from iot_platform.database.deadline import BoundedConnection, BoundedCursor
from iot_platform.database.errors import DatabaseAccessError, DatabaseUnreachableError
from iot_platform.settings import Settings

Role = Literal["writer", "reader", "admin"]

DEFAULTS: Final[dict[str, str]] = {
    "connect_timeout": "10",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
}
"""libpq parameters unless the URL sets them: a dead peer is noticed within about 30 s."""

STATEMENT_SECONDS: Final = 60
ANSWER_SECONDS: Final = 75.0
"""A writer's call without an answer: later than any statement that PostgreSQL itself ends."""

_SESSION: Final = """
SET TIME ZONE 'UTC'; SET lock_timeout = '30s'; SET idle_in_transaction_session_timeout = '5min';
SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3; SET tcp_user_timeout = '30s';
SET timescaledb.max_tuples_decompressed_per_dml_transaction = 0"""
"""The server, too, must notice within about 30 s that we are gone: its defaults keep our locks for two hours. And late rows may hit many
compressed batches: by default TimescaleDB gives up at 100,000 rows, and the drain would never get past such a batch."""
_WRITER: Final = f"""
SET statement_timeout = '{STATEMENT_SECONDS}s'; SET idle_in_transaction_session_timeout = '60s'; SET max_parallel_workers_per_gather = 0"""
"""One CPU for one session: parallel workers of maintenance would take those that draining needs."""

_REFUSED = (
    "authentication failed",
    "does not exist",
    "no pg_hba.conf entry",
    "permission denied",
    "no password supplied",
    "not permitted to log in",
)


def connect(settings: Settings, role: Role = "writer", application_name: str = "iot") -> Connection:
    """A new connection, autocommit off, session time zone UTC. Blocks at most `connect_timeout` (10 s unless the URL says otherwise). A
    writer's calls raise OperationalError when no answer comes for ANSWER_SECONDS.

    Raises:
        DatabaseUnreachableError: no server answers, or not yet. Retry.
        DatabaseAccessError: credentials, database or role are refused. Never retry.
    """
    url = _url(settings, role)
    parameters: dict[str, Any] = {**DEFAULTS, "application_name": application_name, **parse_dsn(url)}
    try:
        connection: BoundedConnection = psycopg2.connect(**parameters, connection_factory=BoundedConnection, cursor_factory=BoundedCursor)
    except psycopg2.OperationalError as error:
        raise explained(error, url, _variable(settings, role)) from error
    connection.answer_seconds = ANSWER_SECONDS
    with connection.cursor() as cursor:
        cursor.execute(_SESSION)
        if role == "writer":
            cursor.execute(_WRITER)
        if role == "reader":
            _become_reader(connection, settings)
    connection.commit()
    if role != "writer":
        connection.answer_seconds = None  # their statements take as long as they take
    return connection


def _url(settings: Settings, role: Role) -> str:
    if role == "admin":
        return settings.admin_url
    if role == "reader" and settings.database_reader_url is not None:
        return settings.database_reader_url.get_secret_value()
    return settings.writer_url


def _become_reader(connection: Connection, settings: Settings) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET default_transaction_read_only = on; SET statement_timeout = 0")
        if settings.database_reader_url is None:
            try:
                cursor.execute("SET ROLE iot_reader")
            except psycopg2.Error as error:
                connection.close()
                raise DatabaseAccessError(
                    f"cannot act as iot_reader ({str(error).strip()}): set IOT_DATABASE_READER_URL to a read-only login, "
                    "or GRANT iot_reader to the role of IOT_DATABASE_URL"
                ) from error


def _variable(settings: Settings, role: Role) -> str:
    """The variable that the role's URL comes from."""
    if role == "admin" and settings.database_admin_url is not None:
        return "IOT_DATABASE_ADMIN_URL"
    if role == "reader" and settings.database_reader_url is not None:
        return "IOT_DATABASE_READER_URL"
    return "IOT_DATABASE_URL"


def explained(error: psycopg2.OperationalError, url: str, variable: str) -> DatabaseUnreachableError | DatabaseAccessError:
    """Why no connection came about, in words that name the server and the variable that `url` comes from."""
    parts = urlsplit(url)
    where = f"{parts.hostname or 'local socket'}:{parts.port or 5432}{parts.path}"
    detail = " ".join(str(error).split())
    if any(text in detail for text in _REFUSED):
        return DatabaseAccessError(f"PostgreSQL at {where} refuses the connection ({detail}): check {variable}")
    return DatabaseUnreachableError(
        f"no PostgreSQL at {where} ({detail}): is it running (`iot up` starts a local one), and is {variable} right?"
    )
