"""/session: logging in and out, and who is logged in."""

from datetime import datetime
from typing import Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, SecretStr
from starlette.responses import Response

from iot_platform.api.problems import Problem, responses

router = APIRouter(tags=["session"])
Role = Literal["viewer", "operator", "admin"]


class Login(BaseModel):
    """A name and its password."""

    model_config = ConfigDict(extra="forbid")
    name: str = Field(min_length=1, max_length=128)
    password: SecretStr = Field(min_length=1, max_length=1024)


class User(BaseModel):
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

    user: User
    tenants: list[GrantedTenant]
    csrf_token: str
    expires_at: datetime
    oidc: Oidc


@router.post("/session", status_code=204, responses=responses(400, 401, 413, 422, 429, 503))
async def log_in(request: Request, login: Login) -> Response:
    """Begin a session: the cookie iot_session. After several wrong passwords the name is locked for a while (Retry-After)."""
    raise Problem("not-built")


@router.get("/session", response_model=Session, responses=responses(401, 422, 429, 503))
async def show(request: Request) -> Response:
    """Who is logged in, which tenants he sees, and the token for changes."""
    raise Problem("not-built")


@router.delete("/session", status_code=204, responses=responses(401, 403, 422, 429, 503))
async def log_out(request: Request) -> Response:
    """End the session."""
    raise Problem("not-built")
