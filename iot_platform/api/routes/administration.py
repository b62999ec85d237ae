"""Users and API keys."""

import asyncio
from collections.abc import Callable
from contextlib import closing
from datetime import datetime
from typing import Annotated, Any, TypeVar

import msgspec
from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, ConfigDict, Field, SecretStr
from starlette.responses import Response

from iot_platform.accounts import keys as api_keys
from iot_platform.accounts import users as accounts
from iot_platform.accounts.errors import AccountError, NoSuchAccountError, TakenError
from iot_platform.accounts.users import Role
from iot_platform.api.access import Admin, Administrator
from iot_platform.api.answers import answer
from iot_platform.api.parameters import Moment, Text, Words
from iot_platform.api.problems import Problem, responses
from iot_platform.api.state import State

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
    display_name: Annotated[Words, Field(max_length=200)] = ""
    password: Password
    administrator: bool = False
    tenants: list[Grant] = Field(default_factory=list, max_length=1000)


class UserChange(BaseModel):
    """What is left out stays."""

    model_config = ConfigDict(extra="forbid")
    display_name: Annotated[Words, Field(max_length=200)] | None = None
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
    name: Annotated[Words, Field(min_length=1, max_length=128)]
    expires_at: Moment | None = None


class MadeApiKey(BaseModel):
    """The new key. `secret` is shown this once."""

    key_id: str
    secret: str


@router.get("/users", response_model=Users)
async def users(request: Request, who: Administrator) -> Response:
    """All users."""
    state: State = request.app.state.iot
    found = await _do(state, accounts.list_users)
    return answer(request, {"users": [_row(item) for item in found], "grantable": await _do(state, accounts.grantable)})


@router.post("/users", status_code=201, response_model=UserRow, responses=responses(400, 409, 413))
async def add_user(request: Request, who: Administrator, user: NewUser) -> Response:
    """Add a user."""
    made = await _do(
        request.app.state.iot,
        lambda connection: accounts.add(
            connection,
            user.name,
            user.password.get_secret_value(),
            display_name=user.display_name,
            administrator=user.administrator,
            tenants=[(item.tenant, item.role) for item in user.tenants],
            by=who.name,
        ),
    )
    return Response(msgspec.json.encode(_row(made)), 201, {"Cache-Control": "no-store"}, "application/json")


@router.patch("/users/{name}", response_model=UserRow, responses=responses(400, 404, 409, 413))
async def change_user(request: Request, who: Administrator, name: Annotated[UserName, Path()], change: UserChange) -> Response:
    """Change a user. A new password, or being disabled, ends his sessions."""
    made = await _do(
        request.app.state.iot,
        lambda connection: accounts.change(
            connection,
            name,
            password=None if change.password is None else change.password.get_secret_value(),
            display_name=change.display_name,
            administrator=change.administrator,
            disabled=change.disabled,
            tenants=None if change.tenants is None else [(item.tenant, item.role) for item in change.tenants],
            by=who.name,
        ),
    )
    return Response(msgspec.json.encode(_row(made)), 200, {"Cache-Control": "no-store"}, "application/json")


@router.get("/tenants/{tenant}/api-keys", response_model=ApiKeys, responses=responses(404))
async def keys(request: Request, access: Admin) -> Response:
    """The tenant's API keys."""
    found = await _do(access.state, lambda connection: api_keys.list_keys(connection, access.tenant))
    names = ("name", "created_at", "created_by", "expires_at", "last_used_at")
    return answer(request, {"keys": [{"key_id": str(item.key_id), **{name: getattr(item, name) for name in names}} for item in found]})


@router.post("/tenants/{tenant}/api-keys", status_code=201, response_model=MadeApiKey, responses=responses(400, 404, 409, 413))
async def add_key(request: Request, access: Admin, key: NewApiKey) -> Response:
    """Make an API key; it reads this tenant and nothing else."""
    number, secret = await _do(
        access.state, lambda connection: api_keys.add(connection, access.tenant, key.name, expires_at=key.expires_at, by=access.who)
    )
    document = msgspec.json.encode({"key_id": str(number), "secret": secret})
    return Response(document, 201, {"Cache-Control": "no-store"}, "application/json")


@router.delete("/tenants/{tenant}/api-keys/{key_id}", status_code=204, responses=responses(404))
async def delete_key(request: Request, access: Admin, key_id: Annotated[str, Path(pattern=r"^[1-9]\d{0,8}$")]) -> Response:
    """Delete an API key; it ends at once."""
    await _do(access.state, lambda connection: api_keys.remove(connection, access.tenant, key_id=int(key_id)))
    return Response(status_code=204)


T = TypeVar("T")


async def _do(state: State, work: Callable[[Any], T]) -> T:
    """What `iot console` does, too, on a connection of its own as iot_console, in a thread: seldom, and a password may be hashed."""

    def run() -> T:
        with closing(state.own_connection()) as connection:
            return work(connection)

    try:
        async with state.hashing:
            return await asyncio.to_thread(run)
    except TakenError as error:
        raise Problem("conflict", str(error)) from error
    except NoSuchAccountError as error:
        raise Problem("not-found", str(error)) from error
    except AccountError as error:
        raise Problem("conflict", str(error)) from error


def _row(user: accounts.User) -> dict[str, Any]:
    tenants = [{"tenant": tenant, "role": role} for tenant, role in user.tenants]
    return {**{name: getattr(user, name) for name in UserRow.model_fields}, "tenants": tenants}
