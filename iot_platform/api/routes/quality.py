"""Incidents and the quality rules that open them."""

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from iot_platform.api import parameters
from iot_platform.api.access import Operator, Viewer
from iot_platform.api.parameters import Cursor, Limit, Moment, Text
from iot_platform.api.problems import Problem, responses

router = APIRouter(prefix="/tenants/{tenant}", tags=["quality"], responses=responses(401, 404, 422, 429, 503))


class IncidentsQuery(parameters.Query):
    """Incidents that are open now, or all that were open in the range."""

    state: Literal["open", "all"] = "open"
    from_: Moment | None = Field(None, alias="from")
    to: Moment | None = None
    limit: Limit = 200
    after: Cursor | None = None


class Incident(BaseModel):
    """The time during which a rule found the same thing about the same device or project."""

    incident_id: str
    rule: str
    severity: str
    project: str
    device: str
    metric: str
    opened_at: datetime
    closed_at: datetime | None
    message: str
    flaps: int
    silenced_until: datetime | None
    silence_reason: str
    acknowledged_by: str


class Incidents(BaseModel):
    """Newest first."""

    incidents: list[Incident]
    next: str | None


class RuleRow(BaseModel):
    """How a rule judges a project or device: the most specific row counts. Empty project: all of the tenant's."""

    rule: str
    project: str
    device: str
    metric: str
    severity: str
    enabled: bool
    parameters: dict[str, Any]
    description: str
    own: bool = Field(description="Of this tenant; false: the platform's default.")


class Rules(BaseModel):
    """The rules that judge this tenant's data."""

    rules: list[RuleRow]


class RuleChange(BaseModel):
    """A rule for this tenant, one project or one device of it."""

    model_config = ConfigDict(extra="forbid")
    project: Annotated[str, Field(max_length=1024)] = ""
    device: Annotated[str, Field(max_length=1024)] = ""
    metric: Annotated[str, Field(max_length=1024)] = ""
    severity: Literal["WARN", "ERROR"] = "WARN"
    enabled: bool = True
    parameters: dict[str, float | int | str | bool | None] = Field(default_factory=dict)


class Accepted(BaseModel):
    """A change that the platform will make; GET /actions/{action_id} tells of it."""

    action_id: str


@router.get("/incidents", response_model=Incidents)
async def incidents(request: Request, access: Viewer, query: Annotated[IncidentsQuery, Query()]) -> Response:
    """Incidents."""
    raise Problem("not-built")


@router.get("/rules", response_model=Rules)
async def rules(request: Request, access: Viewer) -> Response:
    """The rules that judge this tenant's data."""
    raise Problem("not-built")


@router.put("/rules/{rule}", status_code=202, response_model=Accepted, responses=responses(400, 403, 413, 501))
async def change_rule(request: Request, access: Operator, rule: Annotated[Text, Path()], change: RuleChange) -> Response:
    """Change a rule for this tenant; checked before it is accepted."""
    raise Problem("not-built")
