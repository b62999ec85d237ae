"""Incidents and the quality rules that open them."""

from datetime import datetime
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat
from starlette.responses import Response

from iot_platform.api import asking, parameters
from iot_platform.api.access import Operator, Viewer
from iot_platform.api.answers import answer
from iot_platform.api.asking import Accepted
from iot_platform.api.parameters import Cursor, Limit, Moment, Text, next_cursor, read_cursor
from iot_platform.api.problems import responses, wrong
from iot_platform.api.rows import rows

router = APIRouter(prefix="/tenants/{tenant}", tags=["quality"], responses=responses(401, 404, 422, 429, 503))
_INCIDENTS: Final = """
SELECT incident_id, rule, severity, project_id, device_id, metric, opened_at, closed_at, message, flaps, silenced_until, silence_reason,
       acknowledged_by
FROM incident
WHERE (%(state)s = 'all' OR closed_at IS NULL) AND (%(to)s::timestamptz IS NULL OR opened_at < %(to)s)
  AND (%(from)s::timestamptz IS NULL OR closed_at IS NULL OR closed_at > %(from)s)
  AND (%(opened)s::timestamptz IS NULL OR opened_at <= %(opened)s AND (opened_at, incident_id) < (%(opened)s, %(id)s::bigint))
ORDER BY opened_at DESC, incident_id DESC LIMIT %(limit)s"""
_RULES: Final = """
SELECT rule, own, project_id, metric, enabled, severity, threshold, window_seconds, clear_seconds, hold_seconds, parameters, description,
       updated_at
FROM quality_rule ORDER BY rule, own, project_id, metric"""


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
    """A rule's default, or what this tenant, a project or a metric of it has instead: null is inherited. The most specific counts, metric
    before project before tenant; empty project or metric: all."""

    rule: str
    own: bool = Field(description="Of this tenant; false: the platform's default.")
    project: str
    metric: str
    enabled: bool | None
    severity: str | None
    threshold: float | None
    window_seconds: int | None
    clear_seconds: int | None
    hold_seconds: int | None
    parameters: dict[str, Any]
    description: str | None
    updated_at: datetime


class Rules(BaseModel):
    """The rules that judge this tenant's data."""

    rules: list[RuleRow]


class RuleChange(BaseModel):
    """A rule for this tenant, one project or one metric of it; what is null is inherited."""

    model_config = ConfigDict(extra="forbid")
    project: Annotated[str, Field(max_length=1024)] = ""
    metric: Annotated[str, Field(max_length=1024)] = ""
    enabled: bool | None = None
    severity: Literal["WARN", "ERROR"] | None = None
    threshold: FiniteFloat | None = None
    window_seconds: Annotated[int, Field(ge=1, le=31_536_000)] | None = None
    clear_seconds: Annotated[int, Field(ge=0, le=31_536_000)] | None = None
    hold_seconds: Annotated[int, Field(ge=0, le=31_536_000)] | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)
    remove: bool = Field(False, description="Back to what is set more widely.")


@router.get("/incidents", response_model=Incidents)
async def incidents(request: Request, access: Viewer, query: Annotated[IncidentsQuery, Query()]) -> Response:
    """Incidents."""
    opened, number = read_cursor(query.after, tuple[datetime, int]) if query.after else (None, None)
    if opened is not None and opened.tzinfo is None:
        raise wrong("after", "is no cursor of this list")
    values = {"state": query.state, "from": query.from_, "to": query.to, "opened": opened, "id": number, "limit": query.limit + 1}
    async with access.read() as connection:
        found = await rows(connection, _INCIDENTS, values)
    page = found[: query.limit]
    document = [dict(zip(Incident.model_fields, (str(row[0]), *row[1:]), strict=True)) for row in page]
    more = next_cursor(page[-1][6], page[-1][0]) if len(found) > query.limit else None
    return answer(request, {"incidents": document, "next": more})


@router.get("/rules", response_model=Rules)
async def rules(request: Request, access: Viewer) -> Response:
    """The rules that judge this tenant's data."""
    async with access.read() as connection:
        found = await rows(connection, _RULES)
    return answer(request, {"rules": [dict(zip(RuleRow.model_fields, row, strict=True)) for row in found]})


@router.put("/rules/{rule}", status_code=202, response_model=Accepted, responses=responses(400, 403, 413))
async def change_rule(request: Request, access: Operator, rule: Annotated[Text, Path()], change: RuleChange) -> Response:
    """Change a rule for this tenant, or a project or metric of it; checked before it is accepted. What is left out stays, or is
    inherited."""
    return await asking.ask(request, access, "change-rule", {"rule": rule, **change.model_dump()})
