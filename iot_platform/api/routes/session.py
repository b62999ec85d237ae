"""/session: logging in and out, and who is logged in."""

from datetime import datetime

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, SecretStr
from starlette.responses import Response

from iot_platform.accounts.users import Role
from iot_platform.api import access, sessions
from iot_platform.api.answers import answer
from iot_platform.api.problems import Problem, responses

router = APIRouter(tags=["session"])


class Login(BaseModel):
    """A name and its password."""

    model_config = ConfigDict(extra="forbid")
    name: str = Field(min_length=1, max_length=128)
    password: SecretStr = Field(min_length=1, max_length=1024)


class LoggedIn(BaseModel):
    """Who is logged in. `role` is admin for those who manage users, else the highest role that any tenant gives."""

    name: str
    display_name: str
    role: Role


class GrantedTenant(BaseModel):
    """A tenant that the user may see, and what he may do there."""

    tenant: str
    name: str
    role: Role


class Oidc(BaseModel):
    """Whether one may log in through a provider, and what the button says."""

    enabled: bool
    label: str


class Session(BaseModel):
    """The session. `csrf_token` goes into the header X-CSRF-Token of everything that changes something."""

    user: LoggedIn
    tenants: list[GrantedTenant]
    csrf_token: str
    expires_at: datetime
    oidc: Oidc


@router.post("/session", status_code=204, responses=responses(400, 401, 413, 422, 429, 503))
async def log_in(request: Request, login: Login) -> Response:
    """Begin a session: the cookie iot_session. After several wrong passwords the name is locked for a while (Retry-After)."""
    token, seconds = await sessions.log_in(request, login.name, login.password.get_secret_value())
    return with_cookie(Response(status_code=204, headers={"Cache-Control": "no-store"}), request, token, seconds)


@router.get("/session", response_model=Session, responses=responses(401, 422, 429, 503))
async def show(request: Request) -> Response:
    """Who is logged in, which tenants he sees, and the token for changes."""
    settings = request.app.state.iot.settings
    oidc = {"enabled": bool(settings.oidc_issuer), "label": settings.oidc_label}
    try:
        who = await access.user(request)
    except Problem as problem:
        if problem.status == 401:
            problem.extra["oidc"] = oidc
        raise
    tenants = [{"tenant": item.tenant, "name": item.name or item.tenant, "role": item.role} for item in who.tenants]
    user = {"name": who.name, "display_name": who.display_name or who.name, "role": who.role}
    document = {"user": user, "tenants": tenants, "csrf_token": who.csrf_token, "expires_at": who.expires_at, "oidc": oidc}
    return answer(request, document)


@router.delete("/session", status_code=204, responses=responses(401, 403, 422, 429, 503))
async def log_out(request: Request, who: access.User) -> Response:
    """End the session."""
    await sessions.log_out(request.app.state.iot, who.session)
    response = Response(status_code=204, headers={"Cache-Control": "no-store", "Clear-Site-Data": '"cache"'})
    response.delete_cookie(sessions.COOKIE, path="/", httponly=True, samesite="lax", secure=request.url.scheme == "https")
    return response


def with_cookie(response: Response, request: Request, token: str, seconds: int) -> Response:
    """The answer with the session's cookie, which scripts cannot read; Secure where it goes out by https."""
    response.set_cookie(
        sessions.COOKIE, token, max_age=seconds, path="/", httponly=True, samesite="lax", secure=request.url.scheme == "https"
    )
    return response
