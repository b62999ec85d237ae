"""Writes: rows of console_action, which the platform carries out with the writer's rights; and their log."""

import asyncio
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from iot_platform.actions import dry_run
from iot_platform.api import asking, parameters
from iot_platform.api.access import Operator, Viewer
from iot_platform.api.answers import answer
from iot_platform.api.asking import Accepted
from iot_platform.api.parameters import Cursor, Limit, Moment, Text
from iot_platform.api.problems import Problem, responses, wrong
from iot_platform.api.state import State
from iot_platform.api.trace import decode_rules
from iot_platform.telemetry.decode import Correction
from iot_platform.telemetry.errors import CorrectionError

router = APIRouter(prefix="/tenants/{tenant}", tags=["actions"], responses=responses(401, 404, 422, 429, 503))
Kind = Literal["replay", "silence-incident", "acknowledge-incident", "end-correction", "change-rule", "change-series-info"]


class ActionRequest(BaseModel):
    """What to do. Which fields `arguments` has depends on the kind."""

    model_config = ConfigDict(extra="forbid")
    kind: Literal["replay", "silence-incident", "acknowledge-incident", "end-correction"]
    arguments: dict[str, Any] = Field(default_factory=dict)


class Action(BaseModel):
    """One write. `done` of `total` (messages); `words` say what became of it."""

    action_id: str
    kind: str
    state: Literal["queued", "running", "done", "failed"]
    done: int
    total: int | None
    words: str
    requested_by: str
    requested_at: datetime
    finished_at: datetime | None
    arguments: dict[str, Any]


class Actions(BaseModel):
    """The log of writes, newest first."""

    actions: list[Action]
    next: str | None


class ActionsQuery(parameters.Query):
    """How many."""

    limit: Limit = 50
    after: Cursor | None = None


class DryRunRequest(BaseModel):
    """Which quarantined messages, and the rule that they would be decoded by."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)
    from_: Moment = Field(alias="from")
    to: Moment
    reason: Text | None = None
    rule: dict[str, Any] = Field(default_factory=dict)


class DryRunExample(BaseModel):
    """One message, and what would become of it."""

    partition: int
    offset: str
    topic: str
    words: str
    would_store: bool


class DryRun(BaseModel):
    """What a replay by this rule would do."""

    would_store: int
    still_refused: int
    left: int = Field(description="Not tried: beyond 1,000 messages, 16 MiB or 5 s.")
    examples: list[DryRunExample]


class CorrectionRow(BaseModel):
    """One correction of the rules of decoding. `received_to` null: also what comes from now on. Empty project or reason: any."""

    correction_id: str
    project: str
    reason: str
    received_from: datetime
    received_to: datetime | None
    rule: dict[str, Any]
    created_at: datetime
    created_by: str
    ended_at: datetime | None
    ended_by: str


class Corrections(BaseModel):
    """All of a tenant."""

    corrections: list[CorrectionRow]


_CORRECTIONS: Final = """
SELECT correction_id, project_id, reason, received_from, received_to, said, created_at, created_by, ended_at, ended_by
FROM decode_correction WHERE tenant_id = %(tenant)s ORDER BY correction_id DESC"""
_DRY_RUNS: Final = asyncio.Semaphore(1)
"""Decoding takes processor time that answers need."""
_QUARANTINED: Final = """
SELECT kafka_partition, kafka_offset, topic, payload, (extract(epoch FROM received_at) * 1000000)::bigint, reason
FROM tenant.quarantine
WHERE received_at >= %(start)s AND received_at < %(end)s AND (%(reason)s::text IS NULL OR reason = %(reason)s) AND duplicate_of IS NULL
LIMIT %(most)s"""
_ACTIONS: Final = """
SELECT action_id, kind, state, done, total, words, requested_by, requested_at, finished_at, arguments
FROM console_action WHERE tenant_id = %(tenant)s AND action_id < %(before)s ORDER BY action_id DESC LIMIT %(limit)s"""


@router.post("/quarantine/dry-run", response_model=DryRun, responses=responses(400, 403, 413))
async def try_rule(request: Request, access: Operator, body: DryRunRequest) -> Response:
    """What a replay with a correction would do; changes nothing. Of at most 1,000 messages, 16 MiB and 5 s; `left` says how many were left
    out. `rule` has the settings' names: topic_pattern, topic_codecs, tenant_pointers, project_pointers, device_pointers, time_pointers,
    default_timezone."""
    state: State = request.app.state.iot
    tried = _correcting(state, access.tenant, body.rule, "")
    rules = await decode_rules(state)
    asked = {"start": body.from_, "end": body.to, "reason": body.reason, "most": dry_run.MOST_MESSAGES + 1}
    messages: list[dry_run.Stored] = []
    size = left = 0
    async with access.read() as connection:
        async for row in connection.cursor().stream(_QUARANTINED, asked):
            message = dry_run.Stored(*row)
            size += len(message.payload or b"")
            if len(messages) == dry_run.MOST_MESSAGES or size > dry_run.MOST_BYTES:
                left += 1
                continue
            messages.append(message)
    async with _DRY_RUNS:
        outcome = await asyncio.to_thread(dry_run.dry_run, rules, access.tenant, messages, tried)
    examples = [asdict(example) | {"offset": str(example.offset)} for example in outcome.examples]
    document = {
        "would_store": outcome.would_store,
        "still_refused": outcome.still_refused,
        "left": left + outcome.left,
        "examples": examples,
    }
    return answer(request, document)


@router.post("/actions", status_code=202, response_model=Accepted, responses=responses(400, 403, 413))
async def act(request: Request, access: Operator, body: ActionRequest) -> Response:
    """Ask for a write. Arguments of replay: from, to, reason, project, rule (as a dry run's), keep (rule also counts from now on); of
    silence-incident: incident_id, until (null ends it), reason; of acknowledge-incident: incident_id; of end-correction: correction_id."""
    if body.kind == "replay" and isinstance(rule := body.arguments.get("rule"), dict):
        _correcting(request.app.state.iot, access.tenant, rule, "arguments.")
    return await asking.ask(request, access, body.kind, body.arguments, "arguments.")


def _correcting(state: State, tenant: str, said: dict[str, Any], prefix: str) -> Correction | None:
    try:
        return dry_run.correcting(state.settings, tenant, said)
    except CorrectionError as error:
        raise wrong(f"{prefix}rule.{error.field}".rstrip("."), str(error)) from error


@router.get("/corrections", response_model=Corrections)
async def list_corrections(request: Request, access: Viewer) -> Response:
    """Other rules by which messages of this tenant are decoded that the platform's own refuse, newest first."""
    state: State = request.app.state.iot
    async with state.console() as connection:
        rows = await (await connection.execute(_CORRECTIONS, {"tenant": access.tenant})).fetchall()
    found = [dict(zip(CorrectionRow.model_fields, (str(row[0]), *row[1:]), strict=True)) for row in rows]
    return answer(request, {"corrections": found})


@router.get("/actions", response_model=Actions)
async def log(request: Request, access: Viewer, query: Annotated[ActionsQuery, Query()]) -> Response:
    """The log of writes."""
    before = _NEWEST if query.after is None else int(query.after) if query.after.isdecimal() and len(query.after) <= 18 else None
    if before is None:
        raise wrong("after", "is no cursor of this list")
    found = await _read(request, access.tenant, before, query.limit + 1)
    shown = found[: query.limit]
    return answer(request, {"actions": shown, "next": shown[-1]["action_id"] if len(found) > query.limit else None})


@router.get("/actions/{action_id}", response_model=Action)
async def show(request: Request, access: Viewer, action_id: Annotated[str, Path(pattern=r"^[1-9]\d{0,17}$")]) -> Response:
    """How far a write has come."""
    found = await _read(request, access.tenant, int(action_id) + 1, 1)
    if not found or found[0]["action_id"] != action_id:
        raise Problem("not-found")
    return answer(request, found[0])


_NEWEST: Final = 2**62


async def _read(request: Request, tenant: str, before: int, limit: int) -> list[dict[str, Any]]:
    state: State = request.app.state.iot
    async with state.console() as connection:
        rows = await (await connection.execute(_ACTIONS, {"tenant": tenant, "before": before, "limit": limit})).fetchall()
    return [dict(zip(Action.model_fields, (str(row[0]), *row[1:]), strict=True)) for row in rows]
