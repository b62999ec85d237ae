"""Ends tenants' sessions that stay in a transaction too long: how long that is, and why, says sql/repeatable/tenants.sql."""

from typing import Final

import psycopg2
from psycopg2.extensions import connection as Connection  # noqa: N812

from iot_platform.logs import get_logger

IN_THE_WAY_SECONDS: Final = 2.0
"""Who kept us from a lock was in its transaction that long at least: no wait for a lock is shorter."""

log = get_logger(__name__)


def end_tenant_sessions(connection: Connection, in_the_way_seconds: float | None = None) -> int:
    """End sessions of tenants' logins whose transactions are too old, or older than `in_the_way_seconds`; returns how many. Commits on the
    connection, the writer's or the owner's. Where it may not, or before the function exists, it says so and does nothing."""
    try:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT role_name, process_id, reason FROM end_tenant_sessions(make_interval(secs => %s))",
                (in_the_way_seconds,),
            )
            ended = cursor.fetchall()
        connection.commit()
    except psycopg2.ProgrammingError as error:
        connection.rollback()
        log.warning("tenants' sessions are not looked after", error=" ".join(str(error).split()))
        return 0
    for role, pid, reason in ended:
        log.warning("ended a session of a tenant", login=role, pid=pid, reason=reason)
    return len(ended)


def make_way(connection: Connection, error: psycopg2.Error) -> int:
    """After a lock timeout, rolled back: end the tenants' transactions that may have caused it, all as old as the wait; returns how many.
    None if the lock was an advisory one, which only the platform's own sessions hold."""
    if not isinstance(error, psycopg2.errors.LockNotAvailable) or "advisory" in (error.diag.context or ""):
        return 0
    return end_tenant_sessions(connection, IN_THE_WAY_SECONDS)
