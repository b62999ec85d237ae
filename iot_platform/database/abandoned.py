"""Ends sessions of clients that vanished in the middle of a COPY, and with them the locks that they keep.

While PostgreSQL waits for the next bytes of a COPY it heeds no statement_timeout, and TCP's keepalives see nothing when a proxy between us
stays up: such a session would keep its rows locked for ever.
"""

from typing import Final

from psycopg2.extensions import connection as Connection  # noqa: N812

from iot_platform.database.connection import ANSWER_SECONDS
from iot_platform.logs import get_logger

_END: Final = """
SELECT pid, application_name, pg_terminate_backend(pid) FROM pg_stat_activity
WHERE usename = current_user AND datname = current_database() AND pid <> pg_backend_pid()
  AND state = 'active' AND wait_event_type = 'Client' AND wait_event = 'ClientRead'
  AND query_start < now() - make_interval(secs => %s)"""

log = get_logger(__name__)


def end_abandoned(connection: Connection, seconds: float = ANSWER_SECONDS) -> int:
    """End this role's sessions that have waited for their client in the middle of a statement, begun longer ago than any of ours may
    take (a statement whose client lives ends itself by statement_timeout). Returns how many; commits on the connection."""
    with connection.cursor() as cursor:
        cursor.execute(_END, (seconds,))
        ended = cursor.fetchall()
    connection.commit()
    for pid, name, _ in ended:
        log.warning("ended a database session whose client has vanished", session=name, pid=pid)
    return len(ended)
