"""Projects and series of a tenant, with the latest value of each."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from iot_platform.api import parameters
from iot_platform.api.access import Viewer
from iot_platform.api.parameters import Cursor, Limit, Text
from iot_platform.api.problems import Problem, responses

router = APIRouter(prefix="/tenants/{tenant}", tags=["series"], responses=responses(401, 404, 422, 429, 503))


class Project(BaseModel):
    """One project. `series` counts those that have a value."""

    project: str
    name: str
    series: int
    last_time: datetime | None = Field(description="Time of the newest measurement.")
    last_received_at: datetime | None = Field(description="When the ingest daemon received the newest message, of the last hour.")
    lag_seconds: float | None = Field(description="How long ago that was.")


class Projects(BaseModel):
    """All projects of the tenant."""

    projects: list[Project]


class SeriesQuery(parameters.Query):
    """What to list; project, device and search narrow it."""

    project: Text | None = None
    device: Text | None = None
    search: Text | None = Field(None, description="Part of the device, metric or display name; upper and lower case are one.")
    limit: Limit = 200
    after: Cursor | None = None


class SeriesColumns(BaseModel):
    """One entry of each list is one series, in the order of project, device, metric. Times are milliseconds since the epoch."""

    project: list[str]
    device: list[str]
    metric: list[str]
    unit: list[str]
    display_name: list[str]
    description: list[str]
    valid_min: list[float | None]
    valid_max: list[float | None]
    time: list[int | None]
    value: list[float | None]
    value_text: list[str | None] = Field(description="Of texts; and of whole numbers that a double cannot hold, their digits.")
    flags: list[int | None]


class SeriesPage(BaseModel):
    """One page; `next` is the cursor of the next one."""

    columns: SeriesColumns
    next: str | None


@router.get("/projects", response_model=Projects)
async def projects(request: Request, access: Viewer) -> Response:
    """The tenant's projects."""
    raise Problem("not-built")


@router.get("/series", response_model=SeriesPage)
async def series(request: Request, access: Viewer, query: Annotated[SeriesQuery, Query()]) -> Response:
    """The series, each with its latest value."""
    raise Problem("not-built")
