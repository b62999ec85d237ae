"""Is it all there? What was received, and what became of it, by hour."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from iot_platform.api import parameters
from iot_platform.api.access import Viewer
from iot_platform.api.answers import answer
from iot_platform.api.problems import responses
from iot_platform.api.rows import columns, one, rows

router = APIRouter(prefix="/tenants/{tenant}", tags=["balance"], responses=responses(401, 404, 422, 429, 503))
MOST_DAYS: Final = 92.0
STALE: Final = timedelta(minutes=2)
"""Older than this, what was last seen of Kafka or of a daemon says nothing of now."""
AUDIT_STALE: Final = timedelta(minutes=30)
_PLACE: Final = re.compile(r"partition (\d+)(?: generation \d+)? offset (\d+)(?:-(\d+))?")

# accounting_1h counts a redelivery that is in quarantine among duplicates, too: what is stored once is the rest of the messages.
_HOURS: Final = """
SELECT round(date_part('epoch', hour) * 1000)::bigint, (sum(messages) + sum(quarantined))::bigint,
       (sum(messages) - least(sum(duplicates), sum(messages)))::bigint, least(sum(duplicates), sum(messages))::bigint,
       sum(quarantined)::bigint
FROM accounting_1h WHERE hour >= %(hour)s AND hour < %(to)s GROUP BY hour ORDER BY hour"""
_NEWEST: Final = """
SELECT max(last_committed_at - last_received_at) FILTER (WHERE last_committed_at > now() - interval '5 minutes'),
       (SELECT count(*) FROM incident WHERE closed_at IS NULL)
FROM accounting_1h WHERE hour >= now() - interval '2 hours'"""
_PROGRESS: Final = "SELECT lag, seen_at, spooled, in_flight, reported_at FROM progress()"
_AUDIT: Final = "SELECT proof, audited_at, differences, places, texts FROM audit() ORDER BY proof"
_RUNS: Final = "SELECT run_id, started_at, ended_at, batches FROM runs(%(since)s)"


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
    status: str = Field(description="working: it committed within the last half minute; ended: it did not.")
    started_at: datetime | None = Field(description="Its first commit.")
    ended_at: datetime | None = Field(description="Its last commit.")
    batches: int
    url: str | None


class Balance(BaseModel):
    """The balance. `in_flight` and `lag` are the whole platform's: what Kafka holds names no tenant before it is decoded."""

    hours: BalanceHours
    in_flight: int | None
    lag: int | None
    freshness_seconds: float | None
    balanced: bool = Field(description="The audit has looked within half an hour, and found that nothing is missing or doubled.")
    words: list[str] = Field(description="What is wrong, in sentences, the audit's among them; empty where all is well.")
    checked_at: datetime | None = Field(description="When the audit last looked; null: never yet.")
    gaps: list[Gap]
    runs: list[Run]
    incidents_open: int


@router.get("/balance", response_model=Balance)
async def balance(request: Request, access: Viewer, query: Annotated[BalanceQuery, Query()]) -> Response:
    """Received = stored + duplicate + quarantined + in flight."""
    query.check(MOST_DAYS)
    now = datetime.now(UTC)
    values = {"hour": query.from_.replace(minute=0, second=0, microsecond=0), "to": query.to}
    async with access.read() as connection:
        hours = await rows(connection, _HOURS, values)
        freshness, incidents = await one(connection, _NEWEST) or (None, 0)
        lag, seen_at, spooled, in_flight, reported_at = await one(connection, _PROGRESS) or (None,) * 5
        audit = await rows(connection, _AUDIT)
        runs = await rows(connection, _RUNS, {"since": query.from_})
    words = _words(now, seen_at, reported_at, audit)
    document = {
        "hours": columns(list(BalanceHours.model_fields), hours),
        "in_flight": None if lag is None else lag + (spooled or 0) + (in_flight or 0),
        "lag": lag,
        "freshness_seconds": None if freshness is None else freshness.total_seconds(),
        "balanced": bool(audit) and all(now - at < AUDIT_STALE and not differences for _, at, differences, _, _ in audit),
        "words": words,
        "checked_at": min((at for _, at, *_ in audit), default=None),
        "gaps": [gap for *_, places, texts in audit for gap in map(_gap, places, texts) if gap is not None],
        "runs": [_run(access.state.settings.dagster_url, now, row) for row in runs],
        "incidents_open": incidents,
    }
    return answer(request, document)


def _words(now: datetime, seen_at: datetime | None, reported_at: datetime | None, audit: list[tuple[Any, ...]]) -> list[str]:
    words = []
    if seen_at is None or now - seen_at > STALE:
        words.append(
            f"how much waits in Kafka is not known since {seen_at:%Y-%m-%d %H:%M} UTC" if seen_at else "nobody has looked at Kafka yet"
        )
    if reported_at is None or now - reported_at > AUDIT_STALE:
        words.append(
            f"an ingest daemon has not reported since {reported_at:%Y-%m-%d %H:%M} UTC" if reported_at else "no daemon has reported yet"
        )
    if not audit:
        words.append("no audit was made yet")
    for proof, at, differences, _, texts in audit:
        if now - at > AUDIT_STALE:
            words.append(f"the audit {proof} was last made at {at:%Y-%m-%d %H:%M} UTC")
        words += texts
        if differences > len(texts):
            words.append(f"the audit {proof} found {differences - len(texts)} more; `iot audit` names them")
    return words


def _gap(place: str, text: str) -> dict[str, Any] | None:
    found = _PLACE.match(place)
    if found is None:
        return None
    first, last = int(found[2]), int(found[3] or found[2])
    count = last - first + 1
    return {"partition": int(found[1]), "from_offset": str(first), "to_offset": str(last), "count": count, "topic": "", "words": text}


def _run(dagster_url: str, now: datetime, run: tuple[Any, ...]) -> dict[str, Any]:
    run_id, started_at, ended_at, batches = run
    status = "working" if now - ended_at < timedelta(seconds=30) else "ended"
    url = f"{dagster_url}/runs/{run_id}" if re.fullmatch(r"[0-9a-f-]{36}", run_id) else None
    return {"run_id": run_id, "status": status, "started_at": started_at, "ended_at": ended_at, "batches": batches, "url": url}
