"""Messages as they came, the quarantine, and the way of one message."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from iot_platform.api import parameters
from iot_platform.api.access import Viewer
from iot_platform.api.parameters import Cursor, Limit, Offset, Partition, Text
from iot_platform.api.problems import Problem, responses

router = APIRouter(prefix="/tenants/{tenant}", tags=["messages"], responses=responses(401, 404, 422, 429, 503))


class MessagesQuery(parameters.TimeRange):
    """By receive time."""

    project: Text | None = None
    device: Annotated[str, Field(max_length=1024)] | None = None
    limit: Limit = 50
    after: Cursor | None = None


class Message(BaseModel):
    """One message. Of a payload beyond 64 KiB its beginning; `size` is the whole. `payload_text` only where it is UTF-8."""

    received_at: datetime
    topic: str
    project: str
    device: str
    partition: int
    offset: str
    size: int
    payload_text: str | None
    payload_base64: str
    duplicate_of: str | None = Field(description="Offset of the message that this one is a redelivery of.")
    dup: bool
    qos: int


class Messages(BaseModel):
    """Newest first."""

    messages: list[Message]
    next: str | None


class QuarantineQuery(parameters.TimeRange):
    """By receive time."""

    reason: Text | None = None
    project: Text | None = None
    limit: Limit = 50
    after: Cursor | None = None


class ReasonCount(BaseModel):
    """How many messages of the range were refused for a reason."""

    reason: str
    count: int


class QuarantinedMessage(BaseModel):
    """One message that could not be turned into measurements."""

    received_at: datetime
    topic: str
    project: str
    reason: str
    detail: str
    partition: int
    offset: str
    payload_base64: str
    size: int
    replayed_at: datetime | None


class Quarantine(BaseModel):
    """Newest first."""

    reasons: list[ReasonCount]
    messages: list[QuarantinedMessage]
    next: str | None


class TraceQuery(parameters.Query):
    """A Kafka record."""

    partition: Partition
    offset: Offset


class TraceStep(BaseModel):
    """One station of a message. `ok` is null where it is not known (any more)."""

    step: str
    at: datetime | None
    words: str
    ok: bool | None


class Trace(BaseModel):
    """The way of one message, in order."""

    steps: list[TraceStep]


@router.get("/messages", response_model=Messages)
async def messages(request: Request, access: Viewer, query: Annotated[MessagesQuery, Query()]) -> Response:
    """Messages as they came."""
    raise Problem("not-built")


@router.get("/quarantine", response_model=Quarantine)
async def quarantine(request: Request, access: Viewer, query: Annotated[QuarantineQuery, Query()]) -> Response:
    """Messages that could not be turned into measurements, and why."""
    raise Problem("not-built")


@router.get("/trace", response_model=Trace)
async def trace(request: Request, access: Viewer, query: Annotated[TraceQuery, Query()]) -> Response:
    """What became of one message: received, stored, its measurements, its batch."""
    raise Problem("not-built")
