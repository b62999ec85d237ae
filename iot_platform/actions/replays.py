"""Replays that the console asked for, one after the other, with their progress."""

import time
from collections.abc import Callable
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import psycopg2
from psycopg2.extensions import connection as Connection  # noqa: N812

from iot_platform.actions.errors import ActionError
from iot_platform.actions.queue import LOCK, Action
from iot_platform.actions.requests import LONG, Replay
from iot_platform.database import connect
from iot_platform.database.locks import advisory_lock
from iot_platform.settings import Settings
from iot_platform.telemetry import corrections
from iot_platform.telemetry.errors import CorrectionError, ReplayError
from iot_platform.telemetry.replay.replay import Replay as Replaying
from iot_platform.telemetry.replay.replay import Selection, Tally

TELL_SECONDS: Final = 0.5
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_BEGIN: Final = """
UPDATE console_action SET state = 'running', started_at = coalesce(started_at, now()), done = 0
WHERE action_id = (SELECT action_id FROM console_action WHERE state IN ('queued', 'running') AND kind = ANY (%s)
                   ORDER BY action_id LIMIT 1)
RETURNING action_id, tenant_id, kind, arguments, requested_by"""
_TELL: Final = "UPDATE console_action SET done = %s, total = %s WHERE action_id = %s AND state = 'running'"
_DONE: Final = """
UPDATE console_action SET state = %s, words = left(%s, 2000), done = %s, total = %s, finished_at = now()
WHERE action_id = %s AND state = 'running'"""
_MOVED: Final = """
SELECT coalesce(-sum(l.quarantined), 0)::bigint, coalesce(sum(l.measurements), 0)::bigint
FROM ledger l JOIN console_action a ON a.action_id = %s
WHERE l.committed_at >= a.requested_at AND l.kind = 'replay' AND l.run_id LIKE %s"""


def carry_out_replays(settings: Settings, note: Callable[[str], None] = lambda _: None, wait_seconds: float = 5.0) -> int:
    """Do all replays that wait or were begun by somebody who died. How many there were.

    Raises:
        LockTimeoutError: another process is at it. It does them all.
        DatabaseError, KafkaUnavailableError, TransientError: a server cannot be used. What was committed stays; repeat it.
    """
    count = 0
    with (
        closing(connect(settings, application_name="iot-actions")) as connection,
        advisory_lock(connection, LOCK, wait_seconds),
    ):
        while (action := _begin(connection)) is not None:
            note(f"action {action.action_id}: replay for tenant {action.tenant}, asked for by {action.who}")
            _replay(settings, connection, action)
            count += 1
    return count


def _begin(connection: Connection) -> Action | None:
    with connection.cursor() as cursor:
        cursor.execute(_BEGIN, (list(LONG),))
        row = cursor.fetchone()
    connection.commit()
    return Action(*row) if row else None


def _replay(settings: Settings, connection: Connection, action: Action) -> None:
    try:
        tally = _replayed(settings, connection, action)
    except (ActionError, CorrectionError, ReplayError) as error:
        _end(connection, action, "failed", " ".join(str(error).split()), 0, None)
        return
    with connection.cursor() as cursor:
        cursor.execute(_MOVED, (action.action_id, f"{_run_id(action)} %"))
        moved, measurements = cursor.fetchone() or (0, 0)
    connection.commit()
    _end(connection, action, "done", _words(tally, moved, measurements), tally.read, tally.read)


def _replayed(settings: Settings, connection: Connection, action: Action) -> Tally:
    asked = action.request()
    if not isinstance(asked, Replay):
        raise ActionError(f"{action.kind} is no replay")
    _correct(settings, connection, action, asked)
    selection = Selection(
        start=(asked.from_ - _EPOCH) // timedelta(microseconds=1),
        end=(asked.to - _EPOCH) // timedelta(microseconds=1),
        tenant=action.tenant,
        project=asked.project,
        quarantined=True,
        reasons=(str(asked.reason),) if asked.reason else (),
    )
    told_at = 0.0

    def tell(tally: Tally, total: int) -> None:
        nonlocal told_at
        if time.monotonic() - told_at < TELL_SECONDS:
            return
        told_at = time.monotonic()
        with suppress(psycopg2.Error), connection.cursor() as cursor:  # the replay's own connections say if the database is away
            cursor.execute(_TELL, (tally.read, max(total, tally.read), action.action_id))
            connection.commit()

    return Replaying(settings, selection, on_progress=tell, name=_run_id(action)).run()


def _correct(settings: Settings, connection: Connection, action: Action, asked: Replay) -> None:
    """Add the correction that the replay, and whoever decodes these messages again, takes; once, however often the action is begun."""
    if not asked.rule:
        return
    end = None if asked.keep else asked.to
    wanted = corrections.Wanted(action.tenant, asked.rule, asked.from_, end, project=asked.project or "", reason=str(asked.reason or ""))
    with connection:
        corrections.add(connection, settings, wanted, who=action.who, action=action.action_id)


def _run_id(action: Action) -> str:
    return f"console action {action.action_id}"


def _words(tally: Tally, moved: int, measurements: int) -> str:
    stay = "; ".join(f"{after}: {count}" for (_, after), count in tally.reasons.most_common(5) if after != "message")
    rest = f"; {tally.still_bad} stay ({stay})" if tally.still_bad else ""
    return f"{moved} messages left quarantine with {measurements} measurements{rest}"


def _end(connection: Connection, action: Action, *values: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(_DONE, (*values, action.action_id))
    connection.commit()
