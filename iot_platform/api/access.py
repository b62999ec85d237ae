"""Who asks, for which tenant, and what he may do there. Each route of a tenant takes one of Viewer, Operator and Admin."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Path, Request

from iot_platform.accounts.users import ROLES, Role
from iot_platform.api.parameters import Text
from iot_platform.api.pools import Connection
from iot_platform.api.problems import Problem
from iot_platform.api.sessions import Who, identify

if TYPE_CHECKING:
    from iot_platform.api.state import State


@dataclass(frozen=True)
class Access:
    """One request's right to one tenant."""

    tenant: str
    role: Role
    who: str
    """The user's name, or the key's, for the log of writes."""
    login: str
    """The database role that reads this tenant's rows."""
    state: "State" = field(repr=False)

    def read(self) -> AbstractAsyncContextManager[Connection]:
        """A session of the tenant's own login; search_path is its schema, autocommit, read-only.

        Raises:
            Problem: the database does not answer, or is busy. Retry.
        """
        return self.state.tenant(self.login)


def _needs(role: Role) -> Callable[..., Awaitable[Access]]:
    async def access(request: Request, tenant: Annotated[Text, Path(description="Id of the tenant.")]) -> Access:
        who = await identify(request)
        found = next((item for item in who.tenants if item.tenant == tenant), None)
        if found is None:
            raise Problem("no-such-tenant")
        if ROLES.index(found.role) < ROLES.index(role):
            raise Problem("not-allowed", f"this needs the role {role}, and yours is {found.role}")
        return Access(tenant, found.role, who.name, found.login, request.app.state.iot)

    return access


async def _administrator(request: Request) -> Who:
    who = await identify(request)
    if not who.administrator:
        raise Problem("not-allowed", "only those who manage users may do this")
    return who


async def user(request: Request) -> Who:
    """The user whose session this is. Raises Problem."""
    who = await identify(request)
    if not who.session:
        raise Problem("not-logged-in", "an API key has no session")
    return who


Viewer = Annotated[Access, Depends(_needs("viewer"))]
Operator = Annotated[Access, Depends(_needs("operator"))]
Admin = Annotated[Access, Depends(_needs("admin"))]
Administrator = Annotated[Who, Depends(_administrator)]
User = Annotated[Who, Depends(user)]
