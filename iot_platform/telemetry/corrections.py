"""Corrections: other rules of decoding for what the platform's own refuse, by tenant. Reads and adds to decode_correction."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from psycopg2.extensions import connection as Connection  # noqa: N812
from pydantic import ValidationError

from iot_platform.logs import get_logger
from iot_platform.settings import Settings, SettingsError
from iot_platform.telemetry.decode import Correction, DecodeRules
from iot_platform.telemetry.errors import CorrectionError

log = get_logger(__name__)

SETTINGS: Final = (
    "topic_pattern",
    "topic_codecs",
    "tenant_pointers",
    "project_pointers",
    "device_pointers",
    "time_pointers",
    "default_timezone",
)
"""What of the settings a correction may say otherwise."""
LIMITS: Final = ("max_decompressed_bytes", "time_window_past_seconds", "time_window_future_seconds")
"""What it takes from the platform's settings as they are."""
MOST: Final = 50
"""Corrections of one tenant: each costs one more attempt at every message that is refused after all."""

SHIFT_MARGIN_SECONDS: Final = 60
"""From the end of a drain's shift until its successor has looked at the corrections, and more."""

LOAD: Final = """
SELECT correction_id, tenant_id, project_id, topic_filter, reason, (extract(epoch FROM received_from) * 1000000)::bigint,
    (extract(epoch FROM received_to) * 1000000)::bigint, rules FROM decode_correction ORDER BY correction_id"""
"""The rows that corrections_of takes."""
_LIST: Final = """
SELECT correction_id, tenant_id, project_id, topic_filter, reason, received_from, received_to, said, created_at, created_by, ended_at,
    ended_by
FROM decode_correction WHERE %(tenant)s::text IS NULL OR tenant_id = %(tenant)s ORDER BY correction_id"""
_LOCK: Final = "SELECT pg_advisory_xact_lock(lock_key('decode-correction'))"
_KNOWN: Final = "SELECT correction_id FROM decode_correction WHERE action_id = %s"
_COUNT: Final = "SELECT count(*) FROM decode_correction WHERE tenant_id = %s"
_ADD: Final = """
INSERT INTO decode_correction (tenant_id, project_id, topic_filter, reason, received_from, received_to, said, rules, action_id, created_by)
VALUES (%(tenant)s, %(project)s, %(topic_filter)s, %(reason)s, %(start)s, %(end)s, %(said)s, %(rules)s, %(action)s, %(who)s)
RETURNING correction_id"""
_END: Final = """
UPDATE decode_correction SET received_to = greatest(received_from, now() + %(after)s * interval '1 second'), ended_at = now(),
    ended_by = %(who)s
WHERE correction_id = %(correction)s AND (%(tenant)s::text IS NULL OR tenant_id = %(tenant)s) AND received_to IS NULL
RETURNING received_to"""
_ENDED: Final = """
SELECT received_to FROM decode_correction
WHERE correction_id = %(correction)s AND (%(tenant)s::text IS NULL OR tenant_id = %(tenant)s)"""


@dataclass(frozen=True)
class Stored:
    """A row of decode_correction, for people; `received_to` None: also what comes from now on."""

    correction_id: int
    tenant: str
    project: str
    topic_filter: str
    reason: str
    received_from: datetime
    received_to: datetime | None
    said: dict[str, Any]
    created_at: datetime
    created_by: str
    ended_at: datetime | None
    ended_by: str


@dataclass(frozen=True)
class Wanted:
    """A correction that is to be added. `said` is named as the settings are; `end` None: also what comes from now on."""

    tenant: str
    said: Mapping[str, Any]
    start: datetime
    end: datetime | None
    project: str = ""
    reason: str = ""
    topic_filter: str = ""


def rules_with(settings: Settings, said: Mapping[str, Any]) -> DecodeRules:
    """The platform's rules, with what `said` says otherwise, named as the settings are.

    Raises:
        CorrectionError: what it says means nothing; `field` is the setting.
    """
    for name in said:
        if name not in SETTINGS:
            raise CorrectionError(f"is none of {', '.join(SETTINGS)}", name)
    try:
        whole = {name: getattr(settings, name) for name in (*LIMITS, *SETTINGS)} | dict(said)
        return DecodeRules.from_settings(_Rules.model_validate(whole))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        words = first["msg"].removeprefix("Value error, ")
        raise CorrectionError(words, str(first["loc"][0]) if first["loc"] else _named_in(words)) from error
    except SettingsError as error:
        raise CorrectionError(str(error), _named_in(str(error))) from error


def _named_in(words: str) -> str:
    return next((name for name in SETTINGS if f"IOT_{name.upper()}" in words), "")


class _Rules(Settings):
    """Settings from what is given alone: neither environment nor files."""

    @classmethod
    def settings_customise_sources(cls, settings_cls: Any, init_settings: Any, *_: Any, **__: Any) -> tuple[Any, ...]:
        """Only what is given."""
        return (init_settings,)


def corrected(settings: Settings, rules: DecodeRules, connection: Connection) -> DecodeRules:
    """The rules with every correction, as of now. Rolls back."""
    with connection.cursor() as cursor:
        cursor.execute(LOAD)
        rows = cursor.fetchall()
    connection.rollback()
    return replace(rules, corrections=corrections_of(settings, rows))


def corrections_of(settings: Settings, rows: list[Any]) -> tuple[Correction, ...]:
    """Rows of LOAD, oldest first. One that this release cannot read is left out, with a line in the log: a tenant's rules stop nobody."""
    found = []
    for number, tenant, project, topic_filter, reason, start, end, rules in rows:
        try:
            found.append(Correction(tenant, project, topic_filter, reason, start, end, rules_with(settings, rules)))
        except CorrectionError as error:
            log.warning("correction cannot be read", correction=number, field=error.field, error=str(error))
    return tuple(found)


def corrections(connection: Connection, tenant: str | None = None) -> list[Stored]:
    """Rows for people, oldest first. Rolls back."""
    with connection.cursor() as cursor:
        cursor.execute(_LIST, {"tenant": tenant})
        found = [Stored(*row) for row in cursor.fetchall()]
    connection.rollback()
    return found


def add(connection: Connection, settings: Settings, wanted: Wanted, *, who: str, action: int | None = None) -> int:
    """Add a correction, and return its number; one of the action that is there already is not added again. Commits nothing.

    Raises:
        CorrectionError: it means nothing, needs what Sparkplug B's births say, or the tenant has MOST already.
    """
    rules_with(settings, wanted.said)
    ours = list(settings.topic_codecs)
    if any(entry.get("codec") == "sparkplug_b" and entry not in ours for entry in wanted.said.get("topic_codecs", ())):
        raise CorrectionError("Sparkplug B is read in the order of its births: set it in IOT_TOPIC_CODECS", "topic_codecs")
    whole = json.loads(settings.model_dump_json(include=set(SETTINGS))) | dict(wanted.said)
    values = {**vars(wanted), "said": json.dumps(dict(wanted.said)), "rules": json.dumps(whole), "action": action, "who": who}
    with connection.cursor() as cursor:
        cursor.execute(_LOCK)
        if action is not None:
            cursor.execute(_KNOWN, (action,))
            if (known := cursor.fetchone()) is not None:
                return int(known[0])
        cursor.execute(_COUNT, (wanted.tenant,))
        ((count,),) = cursor.fetchall()
        if count >= MOST:
            raise CorrectionError(f"tenant {wanted.tenant} has {MOST} corrections already: put what they say into the platform's settings")
        cursor.execute(_ADD, values)
        ((number,),) = cursor.fetchall()
    return int(number)


def end(connection: Connection, settings: Settings, correction: int, *, who: str, tenant: str | None = None) -> datetime:
    """End a correction that has no end: messages received from a shift and SHIFT_MARGIN_SECONDS on are left alone, as drains at work must
    know the end before it comes. What it has made stays. Returns when it ends, or ended; commits nothing.

    Raises:
        CorrectionError: there is no such correction.
    """
    after = settings.drain_shift_seconds + SHIFT_MARGIN_SECONDS
    values = {"correction": correction, "who": who, "after": after, "tenant": tenant}
    with connection.cursor() as cursor:
        for statement in (_END, _ENDED):
            cursor.execute(statement, values)
            if (row := cursor.fetchone()) is not None:
                return row[0]  # type: ignore[no-any-return]
    raise CorrectionError(f"there is no correction {correction}", "correction_id")
