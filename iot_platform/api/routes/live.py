"""Live values: what the drain committed, as server-sent events."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.responses import Response, StreamingResponse

from iot_platform.api import parameters
from iot_platform.api.access import Viewer
from iot_platform.api.live import LiveFeed, Topic
from iot_platform.api.parameters import Text
from iot_platform.api.problems import responses
from iot_platform.api.state import State

router = APIRouter(prefix="/tenants/{tenant}", tags=["live"], responses=responses(401, 404, 422, 429, 503))


class LiveQuery(parameters.Query):
    """Which values; `last` is the id of the last event seen, where the header Last-Event-ID cannot be sent."""

    project: Text | None = None
    device: Annotated[str, Field(max_length=1024)] | None = None
    last: Annotated[str, Field(max_length=4096)] | None = None


_EVENT: dict[str, Any] = {
    "type": "object",
    "description": "One event of the stream.",
    "required": ["event", "data"],
    "properties": {
        "event": {"enum": ["values", "state", "resync"]},
        "id": {"type": "string", "description": "For Last-Event-ID."},
        "data": {"type": "string", "description": "A JSON object."},
    },
}
_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {"description": "Events values, state and resync.", "content": {"text/event-stream": {"schema": _EVENT}}}
}


@router.get("/live", response_class=Response, responses={**_EVENTS, **responses(413)})
async def live(request: Request, access: Viewer, query: Annotated[LiveQuery, Query()]) -> Response:
    """Values as they are committed: `values` (rows that are new, each series' newest), `state` (every 5 s, and when the database goes or
    comes back), `resync` (load /series now; what follows is newer than it). A stream ends after
    some minutes: connect again with its last id."""
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    if request.scope.get("iot_head"):
        return Response(headers=headers, media_type="text/event-stream")
    last = request.headers.get("last-event-id", "")[:4096] or query.last
    events = await feed(request).stream(Topic(access.tenant, query.project, query.device), access.read, last)
    return StreamingResponse(events, headers=headers, media_type="text/event-stream")


def feed(request: Request) -> LiveFeed:
    """The process's one feed."""
    state: State = request.app.state.iot
    if not hasattr(request.app.state, "live"):
        made = request.app.state.live = LiveFeed(state.console, state.settings.kafka_topic, state.stopping)
        state.measures.streams.set_function(lambda: made.viewers)
    found: LiveFeed = request.app.state.live
    return found
