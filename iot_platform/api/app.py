"""The application: the API below /api/v1, /healthz, /readyz and /metrics; everything else is the front end."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp

from iot_platform.api.middleware import Guard, Observe, SecurityHeaders
from iot_platform.api.problems import FieldProblem, Problem, ProblemDocument
from iot_platform.api.routes import (
    actions,
    administration,
    balance,
    export,
    history,
    live,
    messages,
    oidc,
    operation,
    quality,
    series,
    series_info,
    session,
)
from iot_platform.api.state import State
from iot_platform.api.static import FrontEnd

PREFIX = "/api/v1"
_ROUTERS = (session, oidc, series, history, export, messages, balance, quality, series_info, actions, live, administration)
_DESCRIPTION = (
    "Reads of one tenant, each in a session of the tenant's own database login. Ids are strings, always; times in single objects are ISO "
    "8601 UTC, in columns integer milliseconds since the epoch; errors are application/problem+json. Log in with POST /session, and send "
    "the header X-CSRF-Token with all that changes something; or send an API key (Authorization: Bearer), which reads one tenant."
)


def create_app(state: State) -> ASGIApp:
    """The whole application; connections to the database are opened when it starts to serve."""
    api = GZipMiddleware(create_api(state), minimum_size=1000, compresslevel=4)
    return Observe(SecurityHeaders(FrontEnd(Guard(api))), state)


def create_api(state: State) -> FastAPI:
    """The API without what stands before it."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with state.running():
            yield

    app = FastAPI(
        title="IoT platform",
        version=version("iot-platform"),
        description=_DESCRIPTION,
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        generate_unique_id_function=lambda route: f"{route.endpoint.__module__.rpartition('.')[2]}_{route.name}",
    )
    app.state.iot = state
    whole = APIRouter(prefix=PREFIX)
    for module in _ROUTERS:
        whole.include_router(module.router)
    app.include_router(whole)
    app.include_router(operation.router)
    app.exception_handler(Problem)(_told)
    app.exception_handler(RequestValidationError)(_invalid)
    app.exception_handler(HTTPException)(_by_status)
    app.exception_handler(Exception)(_failed)
    _describe(app)
    return app


async def _told(_request: Request, error: Problem) -> Response:
    return error.response()


async def _failed(_request: Request, _error: Exception) -> Response:
    return Problem("internal-error").response()


async def _by_status(_request: Request, error: HTTPException) -> Response:
    return Problem.of_status(error.status_code, "" if error.status_code in (404, 405) else str(error.detail), error.headers).response()


async def _invalid(_request: Request, error: RequestValidationError) -> Response:
    """What is wrong with which field; never what was sent, which may be a password."""
    found = [
        FieldProblem(field=".".join(str(part) for part in item["loc"][1:]), message=item["msg"].removeprefix("Value error, "))
        for item in error.errors()
    ]
    if any(item["type"] == "json_invalid" for item in error.errors()):
        return Problem("invalid-body").response()
    detail = "; ".join(f"{item.field}: {item.message}" if item.field else item.message for item in found[:5])
    return Problem("invalid-parameters", detail, errors=found).response()


def _describe(app: FastAPI) -> None:
    """The OpenAPI document as it is: our problems instead of the framework's validation errors, and how one logs in."""
    framework = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = framework()
            schemas = document["components"]["schemas"]
            for name in ("HTTPValidationError", "ValidationError"):
                schemas.pop(name, None)
            problem = ProblemDocument.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas.update(problem.pop("$defs"), ProblemDocument=problem)
            document["components"]["securitySchemes"] = {
                "session": {"type": "apiKey", "in": "cookie", "name": "iot_session"},
                "key": {"type": "http", "scheme": "bearer"},
            }
            document["security"] = [{"session": []}, {"key": []}]
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
