"""Measurements or rollups as a file."""

import re
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.background import BackgroundTask
from starlette.responses import FileResponse, Response, StreamingResponse

from iot_platform.api import parameters
from iot_platform.api.access import Access, Viewer
from iot_platform.api.exporting import Wanted, as_csv, write_parquet
from iot_platform.api.parameters import Text
from iot_platform.api.problems import Problem, responses

router = APIRouter(prefix="/tenants/{tenant}", tags=["history"], responses=responses(401, 404, 422, 429, 503))
MOST_DAYS: Final = 3660.0
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
    """Download measurements or rollups, by series and time. A file that breaks off in the middle is not whole: the connection tells."""
    query.check(MOST_DAYS)
    if access.state.exporting.locked():
        raise Problem("busy", "as many exports are running as may: try again", headers={"Retry-After": "10"})
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", f"{query.project}-{query.device or 'all'}-{query.from_:%Y%m%d}-{query.to:%Y%m%d}")[:120]
    headers = {"Content-Disposition": f'attachment; filename="{name}.{query.format}"', "Cache-Control": "no-store"}
    after = query.from_ - timedelta(microseconds=1)
    wanted = Wanted(query.project, query.device, query.metric, after, query.to, query.resolution)
    if query.format == "csv":
        return StreamingResponse(_csv(access, wanted), headers=headers, media_type="text/csv")
    async with access.state.exporting:
        path = await write_parquet(access, wanted)
    return FileResponse(path, headers=headers, media_type="application/vnd.apache.parquet", background=BackgroundTask(Path.unlink, path))


async def _csv(access: Access, wanted: Wanted) -> AsyncIterator[bytes]:
    async with access.state.exporting:
        async for part in as_csv(access, wanted):
            yield part
