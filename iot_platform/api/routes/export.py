"""Measurements or rollups as a file."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.responses import Response

from iot_platform.api import parameters
from iot_platform.api.access import Viewer
from iot_platform.api.parameters import Text
from iot_platform.api.problems import Problem, responses

router = APIRouter(prefix="/tenants/{tenant}", tags=["history"], responses=responses(401, 404, 422, 429, 503))
_BINARY = {"schema": {"type": "string", "format": "binary"}}


class ExportQuery(parameters.TimeRange):
    """A project, a device or a series of it, and a time range."""

    project: Text
    device: Annotated[str, Field(max_length=1024)] | None = None
    metric: Text | None = None
    resolution: Literal["raw", "1h", "1d"] = "raw"
    format: Literal["csv", "parquet"] = "csv"


@router.get(
    "/export",
    response_class=Response,
    responses={200: {"description": "The file.", "content": {"text/csv": _BINARY, "application/vnd.apache.parquet": _BINARY}}},
)
async def export(request: Request, access: Viewer, query: Annotated[ExportQuery, Query()]) -> Response:
    """Download measurements or rollups."""
    raise Problem("not-built")
