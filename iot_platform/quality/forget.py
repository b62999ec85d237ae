"""Forgets a device or project that was taken away or renamed: what the rules learnt of it, and its open incidents."""

from psycopg2.extensions import connection as Connection  # noqa: N812

from iot_platform.database.locks import advisory_lock
from iot_platform.quality import intake
from iot_platform.quality.errors import QualityError
from iot_platform.quality.evaluate import LOCK
from iot_platform.quality.statements import stage_sql


def forget(connection: Connection, tenant: str, project: str, device: str | None, wait_seconds: float = 120.0) -> tuple[int, int]:
    """Drop what was learnt of a device (None: of the whole project) and end its incidents, in one transaction between two evaluations; it
    is learnt anew if it sends again. Returns how many devices and incidents there were.

    Raises:
        QualityError: nothing is known of it.
        LockTimeoutError: an evaluation did not end in time. Retry.
    """
    with advisory_lock(connection, LOCK, wait_seconds), connection.cursor() as cursor:
        cursor.execute(stage_sql("forget"), {"tenant": tenant, "project": project, "device": device})
        devices, incidents = intake.row(cursor)
        connection.commit()
    if not devices and not incidents:
        what = f"device {device}" if device is not None else "any device"
        raise QualityError(f"nothing is known of {what} of project {project} of tenant {tenant}: names as in `iot quality`")
    return devices, incidents
