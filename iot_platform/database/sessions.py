"""The sessions of this database by their names, as pg_stat_activity has them."""

from typing import Final

from psycopg2.extensions import connection as Connection  # noqa: N812

IS_CLIENT: Final = (
    "(backend_type = 'client backend' OR backend_type IS NULL AND datid IS NOT NULL AND usesysid IS NOT NULL"
    " AND NOT starts_with(application_name, 'TimescaleDB Background Worker'))"
)
"""Condition on pg_stat_activity: a session of some client. Of other roles' sessions the platform's roles see no backend_type."""
_SESSIONS = "SELECT application_name FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE %s"


def sessions(connection: Connection, prefix: str) -> set[str]:
    """Names of the sessions in this database that begin with the prefix."""
    with connection, connection.cursor() as cursor:
        cursor.execute(_SESSIONS, (prefix + "%",))
        return {name for (name,) in cursor.fetchall()}
