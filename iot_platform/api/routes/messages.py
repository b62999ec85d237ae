"""Messages as they came, the quarantine, and the way of one message."""

import base64
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, LiteralString

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from iot_platform.api import parameters
from iot_platform.api.access import Viewer
from iot_platform.api.answers import answer
from iot_platform.api.backwards import following, newest_first
from iot_platform.api.parameters import Cursor, Limit, Offset, Partition, Text, next_cursor, read_cursor
from iot_platform.api.problems import Problem, responses, wrong
from iot_platform.api.rows import rows
from iot_platform.api.trace import steps

router = APIRouter(prefix="/tenants/{tenant}", tags=["messages"], responses=responses(401, 404, 422, 429, 503))
MOST_DAYS: Final = 366.0
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
PAYLOAD_BYTES: Final = 64 * 1024
"""Of a larger payload its beginning is sent."""
PAGE_BYTES: Final = 4 * 1024 * 1024
"""A page ends early when its payloads are larger."""

_MESSAGES: Final = """
SELECT received_at, kafka_partition, kafka_offset, topic, project_id, device_id, octet_length(payload), substr(payload, 1, 65536),
       duplicate_of, coalesce(dup, false), coalesce(qos, 0)
FROM message
WHERE received_at >= %(low)s AND received_at < %(high)s AND (%(project)s::text IS NULL OR project_id = %(project)s)
  AND (%(device)s::text IS NULL OR device_id = %(device)s)
  AND (%(at)s::timestamptz IS NULL OR (received_at, kafka_partition, kafka_offset) < (%(at)s, %(partition)s::integer, %(offset)s::bigint))
ORDER BY received_at DESC, kafka_partition DESC, kafka_offset DESC LIMIT %(limit)s"""
_QUARANTINE: Final = """
SELECT received_at, kafka_partition, kafka_offset, topic, project_id, reason, detail, octet_length(payload), substr(payload, 1, 65536)
FROM quarantine
WHERE received_at >= %(low)s AND received_at < %(high)s AND (%(project)s::text IS NULL OR project_id = %(project)s)
  AND (%(reason)s::text IS NULL OR reason = %(reason)s)
  AND (%(at)s::timestamptz IS NULL OR (received_at, kafka_partition, kafka_offset) < (%(at)s, %(partition)s::integer, %(offset)s::bigint))
ORDER BY received_at DESC, kafka_partition DESC, kafka_offset DESC LIMIT %(limit)s"""
_REASONS: Final = """
SELECT reason, count(*) FROM (
    SELECT reason FROM quarantine WHERE received_at >= %(from)s AND received_at < %(to)s
      AND (%(project)s::text IS NULL OR project_id = %(project)s) LIMIT 200000
) q GROUP BY reason ORDER BY 2 DESC, 1"""


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
    found, more = await _page(access, query, _MESSAGES, {"project": query.project, "device": query.device}, payload=7)
    document = [
        {
            "received_at": received,
            "topic": topic,
            "project": project,
            "device": device,
            "partition": partition,
            "offset": str(offset),
            "size": size,
            "payload_text": _text(payload),
            "payload_base64": base64.b64encode(payload).decode(),
            "duplicate_of": None if duplicate is None else str(duplicate),
            "dup": dup,
            "qos": qos,
        }
        for received, partition, offset, topic, project, device, size, payload, duplicate, dup, qos in found
    ]
    return answer(request, {"messages": document, "next": more})


@router.get("/quarantine", response_model=Quarantine)
async def quarantine(request: Request, access: Viewer, query: Annotated[QuarantineQuery, Query()]) -> Response:
    """Messages that could not be turned into measurements, and why. A replay takes those that decode out of here."""
    values = {"project": query.project, "reason": query.reason}
    found, more = await _page(access, query, _QUARANTINE, values, payload=8)
    async with access.read() as connection:
        reasons = await rows(connection, _REASONS, {"from": query.from_, "to": query.to, "project": query.project})
    document = [
        {
            "received_at": received,
            "topic": topic,
            "project": project,
            "reason": reason,
            "detail": detail,
            "partition": partition,
            "offset": str(offset),
            "payload_base64": base64.b64encode(payload).decode(),
            "size": size,
            "replayed_at": None,
        }
        for received, partition, offset, topic, project, reason, detail, size, payload in found
    ]
    counts = [{"reason": reason, "count": count} for reason, count in reasons]
    return answer(request, {"reasons": counts, "messages": document, "next": more})


@router.get("/trace", response_model=Trace)
async def trace(request: Request, access: Viewer, query: Annotated[TraceQuery, Query()]) -> Response:
    """What became of one message: received, stored, its measurements, its batch."""
    found = await steps(access, query.partition, query.offset)
    if not found:
        raise Problem("not-found", "no message of this tenant is there: it may not be committed yet, or retention has taken it")
    return answer(request, {"steps": found})


async def _page(
    access: Viewer, query: MessagesQuery | QuarantineQuery, statement: LiteralString, values: dict[str, Any], payload: int
) -> tuple[list[tuple[Any, ...]], str | None]:
    """A page, newest first, and the cursor of the next one. `payload`: which column the payload is."""
    query.check(MOST_DAYS)
    end, at, partition, offset = query.to, None, None, None
    if query.after is not None:
        microseconds, partition, offset = read_cursor(query.after, tuple[int, int | None, int | None])
        at = _moment(microseconds)
        end = min(query.to, following(at) if partition is not None else at)
    whole = {**values, "at": at if partition is not None else None, "partition": partition, "offset": offset}
    async with access.read() as connection:
        found, looked = await newest_first(connection, statement, whole, start=query.from_, end=end, limit=query.limit + 1)
    page, size = [], 0
    for row in found[: query.limit]:
        page.append(row)
        size += len(row[payload])
        if size > PAGE_BYTES:
            break
    if len(page) < len(found):
        return page, next_cursor(_microseconds(page[-1][0]), page[-1][1], page[-1][2])
    return page, None if looked is None else next_cursor(_microseconds(looked), None, None)


def _microseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)


def _moment(microseconds: int) -> datetime:
    try:
        return _EPOCH + timedelta(microseconds=microseconds)
    except OverflowError:
        raise wrong("after", "is no cursor of this list") from None


def _text(payload: bytes) -> str | None:
    """As text, where it is UTF-8; of a payload that was cut off a character may be missing at the end."""
    try:
        return payload.decode()
    except UnicodeDecodeError as error:
        return payload[: error.start].decode() if len(payload) == PAYLOAD_BYTES and error.start > PAYLOAD_BYTES - 4 else None
