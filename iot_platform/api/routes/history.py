"""History of one series, and what happened to its device on the time axis."""

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from iot_platform.api import parameters
from iot_platform.api.access import Viewer
from iot_platform.api.parameters import Resolution, Text
from iot_platform.api.problems import Problem, responses

router = APIRouter(prefix="/tenants/{tenant}", tags=["history"], responses=responses(401, 404, 422, 429, 503))


class HistoryQuery(parameters.TimeRange):
    """One series and a time range; `auto` takes the finest resolution that makes at most about 2,000 points."""

    project: Text
    device: Annotated[str, Field(max_length=1024)]
    metric: Text
    resolution: Resolution = "auto"


class HistorySeries(BaseModel):
    """Which series it is."""

    project: str
    device: str
    metric: str
    unit: str
    display_name: str
    description: str
    valid_min: float | None
    valid_max: float | None


class RawColumns(BaseModel):
    """Measurements. Times are milliseconds since the epoch."""

    time: list[int]
    value: list[float | None]
    value_text: list[str | None]
    flags: list[int]


class RollupColumns(BaseModel):
    """Hours or days (UTC). `time` is their begin, milliseconds since the epoch; an hour without measurements is not there."""

    time: list[int]
    min: list[float | None]
    max: list[float | None]
    avg: list[float | None]
    count: list[int]
    first: list[float | None]
    last: list[float | None]


class History(BaseModel):
    """The history. `truncated`: there is more in the range than was sent; narrow it, or take a coarser resolution."""

    series: HistorySeries
    resolution: Literal["raw", "1h", "1d"]
    columns: RawColumns | RollupColumns
    truncated: bool


class MarksQuery(parameters.TimeRange):
    """A project, or one device of it."""

    project: Text
    device: Annotated[str, Field(max_length=1024)] | None = None


class TraceOf(BaseModel):
    """A Kafka record; for /trace."""

    partition: int
    offset: str


class Mark(BaseModel):
    """Something on the time axis; several of one kind that lie close together are one."""

    time: datetime
    kind: Literal["late", "conflict", "quarantined", "incident"]
    count: int
    detail: str
    trace: TraceOf | None


class Marks(BaseModel):
    """At most a few hundred, by time."""

    marks: list[Mark]


@router.get("/history", response_model=History)
async def history(request: Request, access: Viewer, query: Annotated[HistoryQuery, Query()]) -> Response:
    """Measurements or rollups of one series."""
    raise Problem("not-built")


@router.get("/marks", response_model=Marks)
async def marks(request: Request, access: Viewer, query: Annotated[MarksQuery, Query()]) -> Response:
    """Late and quarantined messages, conflicts and incidents on the time axis."""
    raise Problem("not-built")
