"""What those ask who run the console: /healthz, /readyz, /metrics. Who comes through a proxy, from outside, does not find them."""

import msgspec
from fastapi import APIRouter, Depends, Request
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import Response

from iot_platform.api.problems import Problem
from iot_platform.api.state import State


def from_inside(request: Request) -> None:
    """Raises Problem: a proxy passed the request on."""
    if "x-forwarded-for" in request.headers or "forwarded" in request.headers:
        raise Problem("not-found")


router = APIRouter(include_in_schema=False, dependencies=[Depends(from_inside)])


@router.get("/healthz")
async def healthz() -> Response:
    """Whether the process goes on."""
    return _plain(200, {"ok": True})


@router.get("/readyz")
async def readyz(request: Request) -> Response:
    """Whether the database answers, and has the console's tables."""
    state: State = request.app.state.iot
    if state.stopping.is_set():
        return _plain(503, {"ok": False, "why": "it was told to end"})
    try:
        async with state.console() as connection:
            await connection.execute("SELECT FROM console_user LIMIT 1")
    except Problem as problem:
        return _plain(503, {"ok": False, "why": problem.detail})
    return _plain(200, {"ok": True})


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """For Prometheus."""
    state: State = request.app.state.iot
    return Response(generate_latest(state.measures.registry), media_type=CONTENT_TYPE_LATEST)


def _plain(status: int, document: dict[str, object]) -> Response:
    return Response(msgspec.json.encode(document) + b"\n", status, {"Cache-Control": "no-store"}, "application/json")
