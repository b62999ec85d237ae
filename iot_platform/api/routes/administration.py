"""Users and API keys."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, ConfigDict, Field, SecretStr
from starlette.responses import Response

from iot_platform.accounts.users import Role
from iot_platform.api.access import Admin
from iot_platform.api.parameters import Moment, Text
from iot_platform.api.problems import Problem, responses

router = APIRouter(tags=["administration"], responses=responses(401, 403, 422, 429, 503))
UserName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._@-]{0,127}$", description="Lower-case letters, digits and . _ @ -")]
Password = Annotated[SecretStr, Field(min_length=12, max_length=1024)]


class Grant(BaseModel):
    """A tenant that a user may see, and what he may do there."""

    model_config = ConfigDict(extra="forbid")
    tenant: Text
    role: Role = "viewer"


class UserRow(BaseModel):
    """A user."""

    name: str
    display_name: str
    administrator: bool
    tenants: list[Grant]
    created_at: datetime
    last_login_at: datetime | None
    locked_until: datetime | None
    disabled: bool


class Users(BaseModel):
    """All users, by name; and the tenants that may be granted: those that `iot console user grant` made a login for."""

    users: list[UserRow]
    grantable: list[str]


class NewUser(BaseModel):
    """A new user; his first password is told to him, and he changes it."""

    model_config = ConfigDict(extra="forbid")
    name: UserName
    display_name: Annotated[str, Field(max_length=200)] = ""
    password: Password
    administrator: bool = False
    tenants: list[Grant] = Field(default_factory=list, max_length=1000)


class UserChange(BaseModel):
    """What is left out stays."""

    model_config = ConfigDict(extra="forbid")
    display_name: Annotated[str, Field(max_length=200)] | None = None
    password: Password | None = None
    administrator: bool | None = None
    disabled: bool | None = None
    tenants: Annotated[list[Grant], Field(max_length=1000)] | None = None


class ApiKey(BaseModel):
    """An API key, without its secret."""

    key_id: str
    name: str
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    last_used_at: datetime | None


class ApiKeys(BaseModel):
    """The tenant's API keys."""

    keys: list[ApiKey]


class NewApiKey(BaseModel):
    """A key that reads one tenant; `expires_at` null: it stays until it is deleted."""

    model_config = ConfigDict(extra="forbid")
    name: Annotated[str, Field(min_length=1, max_length=128)]
    expires_at: Moment | None = None


class MadeApiKey(BaseModel):
    """The new key. `secret` is shown this once."""

    key_id: str
    secret: str


@router.get("/users", response_model=Users)
async def users(request: Request) -> Response:
    """All users."""
    raise Problem("not-built")


@router.post("/users", status_code=201, response_model=UserRow, responses=responses(400, 409, 413))
async def add_user(request: Request, user: NewUser) -> Response:
    """Add a user."""
    raise Problem("not-built")


@router.patch("/users/{name}", response_model=UserRow, responses=responses(400, 404, 409, 413))
async def change_user(request: Request, name: Annotated[UserName, Path()], change: UserChange) -> Response:
    """Change a user. A new password, or being disabled, ends his sessions."""
    raise Problem("not-built")


@router.get("/tenants/{tenant}/api-keys", response_model=ApiKeys, responses=responses(404))
async def keys(request: Request, access: Admin) -> Response:
    """The tenant's API keys."""
    raise Problem("not-built")


@router.post("/tenants/{tenant}/api-keys", status_code=201, response_model=MadeApiKey, responses=responses(400, 404, 409, 413))
async def add_key(request: Request, access: Admin, key: NewApiKey) -> Response:
    """Make an API key; it reads this tenant and nothing else."""
    raise Problem("not-built")


@router.delete("/tenants/{tenant}/api-keys/{key_id}", status_code=204, responses=responses(404))
async def delete_key(request: Request, access: Admin, key_id: Annotated[str, Path(pattern=r"^[1-9]\d{0,17}$")]) -> Response:
    """Delete an API key; it ends at once."""
    raise Problem("not-built")
