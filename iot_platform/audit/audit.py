"""One audit from beginning to end."""

from collections.abc import Callable, Collection
from contextlib import closing
from datetime import UTC, datetime
from typing import Final

import psycopg2

from iot_platform.audit.proofs import PROOFS
from iot_platform.audit.refresh import refresh
from iot_platform.audit.result import AuditResult
from iot_platform.database import connect
from iot_platform.database.errors import DatabaseUnreachableError
from iot_platform.database.migrate import require_migrated
from iot_platform.settings import Settings

EVERYTHING: Final = ("offsets", "sequences", "daemon", "accounting", "sinks")


def run_audit(
    settings: Settings,
    *,
    since: datetime | None = None,
    tenant: str | None = None,
    wait_seconds: float = 60.0,
    note: Callable[[str], None] = lambda _: None,
    proofs: Collection[str] = EVERYTHING,
    statement_seconds: float = 0,
) -> AuditResult:
    """Audit what was committed since then (None: everything, measurements included). `tenant` narrows the sums by hour to one tenant, by
    project; offsets and sequences belong to no tenant. Waits at most `wait_seconds` for the drain. All proofs see one snapshot.

    Raises:
        DatabaseError: the database does not answer, or took longer than `statement_seconds` for a proof (0: no limit).
    """
    try:
        with closing(connect(settings, "writer", "iot-audit")) as connection:
            require_migrated(connection)
            result = AuditResult(since, datetime.now(UTC))
            if {"sequences", "daemon"} & set(proofs):
                fresh = refresh(settings, connection, wait_seconds, note)
                result.lag, result.notes, result.doubts = fresh.lag, fresh.notes, fresh.doubts
            connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
            connection.answer_seconds = statement_seconds + 15 if statement_seconds else None  # type: ignore[attr-defined]
            parameters = {"since": since or "-infinity", "tenant": tenant, "window": settings.ingest_in_flight_window}
            with connection.cursor() as cursor:
                cursor.execute("SELECT set_config('statement_timeout', %s, true)", (str(int(statement_seconds * 1000)),))
            wanted = [*proofs, "measurements"] if since is None and "accounting" in proofs else proofs
            for name in wanted:
                text, prove = PROOFS[name]
                note(text)
                prove(connection, parameters, result)
            connection.rollback()
            result.at = datetime.now(UTC)
            return result
    except psycopg2.Error as error:
        raise DatabaseUnreachableError(f"the audit was not finished: {' '.join(str(error).split())}") from error
