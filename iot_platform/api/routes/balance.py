"""Is it all there? What was received, and what became of it, by hour."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from iot_platform.api import parameters
from iot_platform.api.access import Viewer
from iot_platform.api.problems import Problem, responses

router = APIRouter(prefix="/tenants/{tenant}", tags=["balance"], responses=responses(401, 404, 422, 429, 503))


class BalanceQuery(parameters.TimeRange):
    """By receive time, in whole hours."""


class BalanceHours(BaseModel):
    """By hour of receipt (its begin, milliseconds since the epoch): received = stored + duplicate + quarantined."""

    time: list[int]
    received: list[int]
    stored: list[int]
    duplicate: list[int]
    quarantined: list[int]


class Gap(BaseModel):
    """Records of a Kafka partition that the database does not account for."""

    partition: int
    from_offset: str
    to_offset: str
    count: int
    topic: str
    words: str


class Run(BaseModel):
    """One of the last runs of the drain."""

    run_id: str
    status: str
    started_at: datetime | None
    ended_at: datetime | None
    messages: int
    url: str | None


class Balance(BaseModel):
    """The balance. `in_flight` and `lag` are the whole platform's: what Kafka holds names no tenant before it is decoded."""

    hours: BalanceHours
    in_flight: int | None
    lag: int | None
    freshness_seconds: float | None
    balanced: bool
    words: list[str] = Field(description="The audit's sentences; empty where all is well.")
    checked_at: datetime
    gaps: list[Gap]
    runs: list[Run]
    incidents_open: int


@router.get("/balance", response_model=Balance)
async def balance(request: Request, access: Viewer, query: Annotated[BalanceQuery, Query()]) -> Response:
    """Received = stored + duplicate + quarantined + in flight."""
    raise Problem("not-built")
