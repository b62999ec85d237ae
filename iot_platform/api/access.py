"""Who asks, for which tenant, and what he may do there. Each route of a tenant takes one of Viewer, Operator and Admin."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final, Literal

from fastapi import Depends, Path, Request

from iot_platform.api.parameters import Text
from iot_platform.api.problems import Problem

if TYPE_CHECKING:
    from psycopg import AsyncConnection

Role = Literal["viewer", "operator", "admin"]
ROLES: Final[tuple[Role, ...]] = ("viewer", "operator", "admin")
"""Each may what those before it may."""


@dataclass(frozen=True)
class Access:
    """One request's right to one tenant."""

    tenant: str
    role: Role
    who: str
    """The user's name, or the key's, for the log of writes."""
    login: str
    """The database role that reads this tenant's rows."""

    @asynccontextmanager
    async def read(self) -> AsyncIterator["AsyncConnection[tuple[object, ...]]"]:
        """A session of the tenant's own login; search_path is its schema, autocommit, read-only.

        Raises:
            Problem: the database does not answer, or is busy. Retry.
        """
        raise Problem("not-built")
        yield


def _needs(role: Role) -> Callable[..., Awaitable[Access]]:
    async def access(request: Request, tenant: Annotated[Text, Path(description="Id of the tenant.")]) -> Access:
        raise Problem("not-built")

    return access


Viewer = Annotated[Access, Depends(_needs("viewer"))]
Operator = Annotated[Access, Depends(_needs("operator"))]
Admin = Annotated[Access, Depends(_needs("admin"))]
