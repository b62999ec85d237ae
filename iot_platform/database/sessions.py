"""The sessions of this database by their names, as pg_stat_activity has them."""

from psycopg2.extensions import connection as Connection  # noqa: N812

_SESSIONS = "SELECT application_name FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE %s"


def sessions(connection: Connection, prefix: str) -> set[str]:
    """Names of the sessions in this database that begin with the prefix."""
    with connection, connection.cursor() as cursor:
        cursor.execute(_SESSIONS, (prefix + "%",))
        return {name for (name,) in cursor.fetchall()}
