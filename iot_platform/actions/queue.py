"""Carries out what stands in console_action. A short action and the note that it is done commit together, so it happens once; a replay is
idempotent, and is begun anew until the note says that it is done."""

from dataclasses import dataclass
from datetime import UTC
from typing import Any, Final

import psycopg2
from psycopg2.extensions import connection as Connection  # noqa: N812

from iot_platform.actions.errors import ActionError
from iot_platform.actions.requests import (
    LONG,
    AcknowledgeIncident,
    ChangeRule,
    ChangeSeriesInfo,
    EndCorrection,
    Replay,
    SilenceIncident,
    parse_request,
)
from iot_platform.actions.requests import Request as Asked
from iot_platform.database.errors import is_transient
from iot_platform.database.locks import is_locked
from iot_platform.quality.errors import RulesError
from iot_platform.quality.rules import store_rules
from iot_platform.settings import Settings
from iot_platform.telemetry import corrections
from iot_platform.telemetry.errors import CorrectionError
from iot_platform.tenants.errors import TenantError
from iot_platform.tenants.series_info import SeriesInfo, store

LOCK: Final = "console-actions"
"""Held by the one who replays."""

_SHORT: Final = """
SELECT action_id, tenant_id, kind, arguments, requested_by FROM console_action WHERE state = 'queued' AND NOT kind = ANY (%s)
ORDER BY action_id LIMIT 1 FOR UPDATE SKIP LOCKED"""
_DONE: Final = """
UPDATE console_action SET state = %s, words = left(%s, 2000), done = coalesce(%s, done), total = coalesce(%s, total),
    started_at = coalesce(started_at, now()), finished_at = clock_timestamp() WHERE action_id = %s"""
_WAITING: Final = """
SELECT action_id FROM console_action WHERE state IN ('queued', 'running') AND kind = ANY (%s) ORDER BY action_id LIMIT 1"""
_SILENCE: Final = """
UPDATE quality_incident SET silenced_until = CASE WHEN %(until)s::timestamptz > now() THEN %(until)s::timestamptz END,
    silence_reason = CASE WHEN %(until)s::timestamptz > now() THEN %(reason)s ELSE '' END,
    silenced_by = CASE WHEN %(until)s::timestamptz > now() THEN %(who)s ELSE '' END
WHERE incident_id = %(incident)s AND tenant_id = %(tenant)s RETURNING silenced_until"""
_ACKNOWLEDGE: Final = """
UPDATE quality_incident SET acknowledged_at = coalesce(acknowledged_at, now()),
    acknowledged_by = CASE WHEN acknowledged_at IS NULL THEN %(who)s ELSE acknowledged_by END
WHERE incident_id = %(incident)s AND tenant_id = %(tenant)s RETURNING acknowledged_by"""


@dataclass(frozen=True)
class Action:
    """A row of console_action that is to be carried out."""

    action_id: int
    tenant: str
    kind: str
    arguments: dict[str, Any]
    who: str

    def request(self) -> Asked:
        """Raises ActionError."""
        return parse_request(self.tenant, self.kind, self.arguments)


def carry_out_short(settings: Settings, connection: Connection) -> int:
    """Do all that is queued and takes milliseconds, one transaction each. How many there were.

    Raises:
        psycopg2.Error: the database does not answer; what is not done stays queued.
    """
    count = 0
    while True:
        with connection.cursor() as cursor:
            cursor.execute(_SHORT, (list(LONG),))
            row = cursor.fetchone()
            if row is None:
                connection.rollback()
                return count
            action = Action(*row)
            cursor.execute("SAVEPOINT action")
            try:
                state, words = "done", _carry_out(settings, connection, action)
            except (ActionError, CorrectionError, RulesError, TenantError, psycopg2.Error) as error:
                if isinstance(error, psycopg2.Error) and is_transient(error, connection):
                    raise
                cursor.execute("ROLLBACK TO SAVEPOINT action")  # it must not stand in the way of those behind it
                state, words = "failed", " ".join(str(error).split())
            cursor.execute(_DONE, (state, words, None, None, action.action_id))
        connection.commit()
        count += 1


def _carry_out(settings: Settings, connection: Connection, action: Action) -> str:
    """Inside the transaction; returns what became of it."""
    match action.request():
        case SilenceIncident() as asked:
            (until,) = _of_incident(connection, _SILENCE, action, asked.incident_id, until=asked.until, reason=asked.reason)
            return f"silenced until {until:%Y-%m-%d %H:%M:%S} UTC" if until else "no longer silenced"
        case AcknowledgeIncident() as asked:
            (who,) = _of_incident(connection, _ACKNOWLEDGE, action, asked.incident_id)
            return "acknowledged" if who == action.who else f"{who} had acknowledged it already"
        case EndCorrection() as asked:
            ends = corrections.end(connection, settings, int(asked.correction_id), who=action.who, tenant=action.tenant)
            return f"messages received from {ends.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC on are left alone; what it made stays"
        case ChangeRule() as asked:
            changed = store_rules(connection, [asked.setting(action.tenant)])
            return "changed; judged by it from the next evaluation on, 3 minutes at most" if changed else "nothing to change"
        case ChangeSeriesInfo() as asked:
            info = SeriesInfo(**asked.model_dump())
            return "changed" if store(connection, action.tenant, [info], action.who) else "nothing to change"
        case Replay():
            raise ActionError("a replay is done by a run")


def _of_incident(connection: Connection, statement: str, action: Action, incident: str, **more: object) -> tuple[Any, ...]:
    with connection.cursor() as cursor:
        cursor.execute(statement, {"incident": int(incident), "tenant": action.tenant, "who": action.who, **more})
        row = cursor.fetchone()
    if row is None:
        raise ActionError(f"there is no incident {incident}", "incident_id")
    return tuple(row)


def waiting(connection: Connection) -> int | None:
    """The oldest action that needs a run, unless a run is at work; None: there is none."""
    with connection.cursor() as cursor:
        cursor.execute(_WAITING, (list(LONG),))
        row = cursor.fetchone()
    connection.rollback()
    return None if row is None or is_locked(connection, LOCK) else int(row[0])
