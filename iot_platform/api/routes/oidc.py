"""/oidc: logging in through an OpenID provider."""

from typing import Annotated, Final
from urllib.parse import quote

from fastapi import APIRouter, Query, Request
from pydantic import ConfigDict, Field
from starlette.responses import RedirectResponse, Response

from iot_platform.api import parameters, sessions
from iot_platform.api.oidc import COOKIE, LOGIN_SECONDS, PATH, Provider, Refused
from iot_platform.api.problems import Problem, responses
from iot_platform.api.routes.session import with_cookie
from iot_platform.api.state import State
from iot_platform.logs import get_logger

log = get_logger(__name__)
router = APIRouter(prefix="/oidc", tags=["session"])
_VISIBLE: Final = r"^[\x20-\x7e]*$"


class Return(parameters.Query):
    """Where to go afterwards."""

    return_to: Annotated[str, Field(max_length=2048, pattern=r"^/([^/\\\s][^\\\s]*)?$")] = "/"


class Callback(parameters.Query):
    """What the provider sends back."""

    model_config = ConfigDict(extra="ignore")  # providers add their own
    # RFC 6749, appendix A: visible ASCII. Whatever fits these lengths fits a request line as uvicorn takes it (64 KiB, percent-encoded).
    code: Annotated[str, Field(max_length=4096, pattern=_VISIBLE)] = ""
    state: Annotated[str, Field(max_length=1024, pattern=_VISIBLE)] = ""
    error: Annotated[str, Field(max_length=256, pattern=_VISIBLE)] = ""
    iss: Annotated[str, Field(max_length=2048, pattern=_VISIBLE)] = ""


@router.get("/login", status_code=302, response_class=Response, responses=responses(404, 422, 429, 503))
async def log_in(request: Request, query: Annotated[Return, Query()]) -> Response:
    """To the provider."""
    known = _provider(request)
    redirect_uri = (request.app.state.iot.settings.console_url or str(request.base_url).rstrip("/")) + f"{PATH}/callback"
    url, cookie = await known.leave(redirect_uri, query.return_to)
    response = RedirectResponse(url, 302, {"Cache-Control": "no-store"})
    secure = request.url.scheme == "https"
    response.set_cookie(COOKIE, cookie, max_age=LOGIN_SECONDS, path=PATH, httponly=True, samesite="lax", secure=secure)
    return response


@router.get("/callback", status_code=302, response_class=Response, responses=responses(404, 422, 429, 503))
async def come_back(request: Request, query: Annotated[Callback, Query()]) -> Response:
    """From the provider, back to the page that one came from; or to the login page, with `problem` in its address."""
    known, state = _provider(request), _state(request)
    try:
        return_to, claims = await known.come_back(request.cookies.get(COOKIE, ""), query.model_dump())
        user = await known.user(state, claims)
    except Refused as refused:
        log.warning("oidc: login refused", problem=refused.slug, why=str(refused))
        response: Response = RedirectResponse(f"/login?problem={quote(refused.slug)}", 302, {"Cache-Control": "no-store"})
    else:
        token = await sessions.begin(state, user, request.cookies.get(sessions.COOKIE, ""))
        response = RedirectResponse(return_to, 302, {"Cache-Control": "no-store"})
        with_cookie(response, request, token, int(state.settings.console_session_hours * 3600))
    response.delete_cookie(COOKIE, path=PATH, httponly=True, samesite="lax", secure=request.url.scheme == "https")
    return response


def _state(request: Request) -> State:
    state: State = request.app.state.iot
    return state


def _provider(request: Request) -> Provider:
    """The process's one. Raises Problem: the settings name none, or too many logins come from this address."""
    state = _state(request)
    if not hasattr(request.app.state, "oidc"):
        request.app.state.oidc = Provider(state.settings, state.key)
    known: Provider = request.app.state.oidc
    if not known.enabled:
        raise Problem("not-found", "there is no provider: IOT_OIDC_ISSUER is not set")
    if wait := state.logins.take(request.client.host if request.client else ""):
        raise Problem("too-many-requests", headers={"Retry-After": str(int(wait) + 1)})
    return known
