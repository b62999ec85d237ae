"""/oidc: logging in through an OpenID provider."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field
from starlette.responses import Response

from iot_platform.api import parameters
from iot_platform.api.problems import Problem, responses

router = APIRouter(prefix="/oidc", tags=["session"])


class Return(parameters.Query):
    """Where to go afterwards."""

    return_to: Annotated[str, Field(max_length=2048, pattern=r"^/([^/\\].*)?$")] = "/"


class Callback(parameters.Query):
    """What the provider sends back."""

    code: Annotated[str, Field(max_length=4096)] = ""
    state: Annotated[str, Field(max_length=4096)] = ""
    error: Annotated[str, Field(max_length=4096)] = ""
    error_description: Annotated[str, Field(max_length=4096)] = ""
    iss: Annotated[str, Field(max_length=4096)] = ""
    session_state: Annotated[str, Field(max_length=4096)] = ""


@router.get("/login", status_code=302, responses=responses(404, 422, 503))
async def log_in(query: Annotated[Return, Query()]) -> Response:
    """To the provider."""
    raise Problem("not-found", "logging in through a provider is not set up")


@router.get("/callback", status_code=302, responses=responses(404, 422, 503))
async def come_back(query: Annotated[Callback, Query()]) -> Response:
    """From the provider, back to the page that one came from."""
    raise Problem("not-found", "logging in through a provider is not set up")
