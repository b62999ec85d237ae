"""Writes: rows of console_action, which the platform carries out with the writer's rights; and their log."""

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from iot_platform.api import parameters
from iot_platform.api.access import Operator, Viewer
from iot_platform.api.parameters import Cursor, Limit, Moment, Text
from iot_platform.api.problems import Problem, responses
from iot_platform.api.routes.quality import Accepted

router = APIRouter(prefix="/tenants/{tenant}", tags=["actions"], responses=responses(401, 404, 422, 429, 503))
Kind = Literal["replay", "silence-incident", "acknowledge-incident", "change-rule", "change-series-info"]


class ActionRequest(BaseModel):
    """What to do. Which fields `arguments` has depends on the kind."""

    model_config = ConfigDict(extra="forbid")
    kind: Literal["replay", "silence-incident", "acknowledge-incident"]
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
    examples: list[DryRunExample]


@router.post("/quarantine/dry-run", response_model=DryRun, responses=responses(400, 403, 413, 501))
async def dry_run(request: Request, access: Operator, body: DryRunRequest) -> Response:
    """What a replay by another rule would do; changes nothing."""
    raise Problem("not-built")


@router.post("/actions", status_code=202, response_model=Accepted, responses=responses(400, 403, 409, 413, 501))
async def act(request: Request, access: Operator, body: ActionRequest) -> Response:
    """Ask for a write."""
    raise Problem("not-built")


@router.get("/actions", response_model=Actions, responses=responses(501))
async def log(request: Request, access: Viewer, query: Annotated[ActionsQuery, Query()]) -> Response:
    """The log of writes."""
    raise Problem("not-built")


@router.get("/actions/{action_id}", response_model=Action, responses=responses(501))
async def show(request: Request, access: Viewer, action_id: Annotated[str, Path(pattern=r"^[1-9]\d{0,17}$")]) -> Response:
    """How far a write has come."""
    raise Problem("not-built")
