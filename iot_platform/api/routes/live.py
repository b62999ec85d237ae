"""Live values: what the drain committed, as server-sent events."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.responses import Response

from iot_platform.api import parameters
from iot_platform.api.access import Viewer
from iot_platform.api.parameters import Text
from iot_platform.api.problems import Problem, responses

router = APIRouter(prefix="/tenants/{tenant}", tags=["live"], responses=responses(401, 404, 422, 429, 503))


class LiveQuery(parameters.Query):
    """Which values; `last` is the id of the last event seen, where the header Last-Event-ID cannot be sent."""

    project: Text | None = None
    device: Annotated[str, Field(max_length=1024)] | None = None
    last: Annotated[str, Field(max_length=4096)] | None = None


_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {"description": "Events values, state and resync.", "content": {"text/event-stream": {"schema": {"type": "string"}}}}
}


@router.get("/live", response_class=Response, responses={**_EVENTS, **responses(501)})
async def live(request: Request, access: Viewer, query: Annotated[LiveQuery, Query()]) -> Response:
    """Values as they are committed."""
    raise Problem("not-built")
