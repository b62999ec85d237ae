"""What people say of a series: display name, unit, valid range, description; with the history of changes."""

from datetime import datetime
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat
from starlette.responses import Response

from iot_platform.api import asking, parameters
from iot_platform.api.access import Operator, Viewer
from iot_platform.api.answers import answer
from iot_platform.api.asking import Accepted
from iot_platform.api.parameters import Text
from iot_platform.api.problems import Problem, responses
from iot_platform.api.rows import one, rows

router = APIRouter(prefix="/tenants/{tenant}/series-info", tags=["series"], responses=responses(401, 404, 422, 429, 503))
_NAMES: Final = ("project", "device", "metric", "display_name", "unit", "valid_min", "valid_max", "description")
_INFO: Final = """
SELECT project_id, device_id, metric, display_name, unit, valid_min, valid_max, description FROM series
WHERE project_id = %(project)s AND device_id = %(device)s AND metric = %(metric)s"""
_CHANGES: Final = """
SELECT changed_at, changed_by, display_name, unit, valid_min, valid_max, description FROM series_info_change
WHERE project_id = %(project)s AND device_id = %(device)s AND metric = %(metric)s ORDER BY change_id DESC LIMIT 500"""


class SeriesQuery(parameters.Query):
    """One series."""

    project: Text
    device: Annotated[str, Field(max_length=1024)]
    metric: Text


class SeriesInfo(BaseModel):
    """What people say of a series; empty where nobody said anything."""

    project: str
    device: str
    metric: str
    display_name: str
    unit: str
    valid_min: float | None
    valid_max: float | None
    description: str


class SeriesInfoChange(BaseModel):
    """The whole of it: what is left out becomes empty."""

    model_config = ConfigDict(extra="forbid")
    display_name: Annotated[str, Field(max_length=200)] = ""
    unit: Annotated[str, Field(max_length=50)] = ""
    valid_min: FiniteFloat | None = None
    valid_max: FiniteFloat | None = None
    description: Annotated[str, Field(max_length=2000)] = ""


class ChangedInfo(BaseModel):
    """One change: what it was afterwards, when and by whom."""

    changed_at: datetime
    changed_by: str
    display_name: str
    unit: str
    valid_min: float | None
    valid_max: float | None
    description: str


class Changes(BaseModel):
    """Newest first."""

    changes: list[ChangedInfo]


@router.get("", response_model=SeriesInfo)
async def show(request: Request, access: Viewer, query: Annotated[SeriesQuery, Query()]) -> Response:
    """What people say of one series."""
    return answer(request, await info(access, query.model_dump()))


@router.put("", status_code=202, response_model=Accepted, responses=responses(400, 403, 413))
async def change(request: Request, access: Operator, query: Annotated[SeriesQuery, Query()], change: SeriesInfoChange) -> Response:
    """Say something else of it."""
    return await asking.ask(request, access, "change-series-info", query.model_dump() | change.model_dump())


@router.get("/changes", response_model=Changes)
async def changes(request: Request, access: Viewer, query: Annotated[SeriesQuery, Query()]) -> Response:
    """Who said what, and when; the newest 500."""
    async with access.read() as connection:
        found = await rows(connection, _CHANGES, query.model_dump())
    return answer(request, {"changes": [dict(zip(ChangedInfo.model_fields, row, strict=True)) for row in found]})


async def info(access: Viewer, series: dict[str, Any]) -> dict[str, Any]:
    """What people say of the series of these names (project, device, metric). Raises Problem where there is none."""
    async with access.read() as connection:
        row = await one(connection, _INFO, series)
    if row is None:
        raise Problem("not-found", "there is no such series")
    return dict(zip(_NAMES, row, strict=True))
