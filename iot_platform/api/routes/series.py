"""Projects and series of a tenant, with the latest value of each."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from iot_platform.api import parameters
from iot_platform.api.access import Viewer
from iot_platform.api.answers import answer
from iot_platform.api.parameters import Cursor, Limit, Text, next_cursor, read_cursor
from iot_platform.api.problems import responses
from iot_platform.api.rows import columns, rows

router = APIRouter(prefix="/tenants/{tenant}", tags=["series"], responses=responses(401, 404, 422, 429, 503))
MOST_SERIES: Final = 20_000
"""Of a tenant; with more, the newest measurement of a project is not looked for: every series would have to be."""

_PROJECTS: Final = """
SELECT p.project_id, p.series_count,
       CASE WHEN (SELECT sum(series_count) FROM project) <= %(most)s
           THEN (SELECT max(l.time) FROM latest l WHERE l.project_id = p.project_id) END, a.received_at
FROM project p LEFT JOIN (
    SELECT project_id, max(last_received_at) AS received_at FROM accounting_1h WHERE hour >= %(since)s GROUP BY project_id
) a USING (project_id) ORDER BY p.project_id"""
_SERIES: Final = """
SELECT project_id, device_id, metric, unit, display_name, description, valid_min, valid_max,
       round(date_part('epoch', latest_time) * 1000)::bigint, value, coalesce(value_text, value_int::text), flags
FROM series_page(%(project)s, %(device)s, NULL, %(search)s, %(after_project)s, %(after_device)s, %(after_metric)s, %(limit)s)"""


class Project(BaseModel):
    """One project. `series` counts those that have a value."""

    project: str
    name: str
    series: int
    last_time: datetime | None = Field(description="Time of the newest measurement; null where the tenant has more than 20,000 series.")
    last_received_at: datetime | None = Field(description="When the ingest daemon received the newest message, of the last month.")
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
    now = datetime.now(UTC)
    async with access.read() as connection:
        found = await rows(connection, _PROJECTS, {"most": MOST_SERIES, "since": now - timedelta(days=31)})
    document = [
        {
            "project": project,
            "name": project,
            "series": count,
            "last_time": last,
            "last_received_at": received,
            "lag_seconds": None if received is None else round((now - received).total_seconds(), 1),
        }
        for project, count, last, received in found
    ]
    return answer(request, {"projects": document})


@router.get("/series", response_model=SeriesPage)
async def series(request: Request, access: Viewer, query: Annotated[SeriesQuery, Query()]) -> Response:
    """The series, each with its latest value."""
    after = read_cursor(query.after, tuple[str, str, str]) if query.after else (None, None, None)
    values = {
        "project": query.project,
        "device": query.device,
        "search": query.search,
        "limit": query.limit + 1,
        "after_project": after[0],
        "after_device": after[1],
        "after_metric": after[2],
    }
    async with access.read() as connection:
        found = await rows(connection, _SERIES, values)
    page = found[: query.limit]
    more = next_cursor(*page[-1][:3]) if len(found) > query.limit else None
    return answer(request, {"columns": columns(list(SeriesColumns.model_fields), page), "next": more})
