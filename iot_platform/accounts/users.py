"""Users of the console, and which tenants they may see; as the owner of the database, or as iot_console. Connections have autocommit off,
and each function is one transaction."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, get_args

from psycopg2.extensions import connection as Connection  # noqa: N812
from psycopg2.extensions import cursor as Cursor  # noqa: N812

from iot_platform.accounts import passwords
from iot_platform.accounts.errors import AccountError, NoSuchAccountError, TakenError

Role = Literal["viewer", "operator", "admin"]
ROLES: Final[tuple[Role, ...]] = get_args(Role)
"""Each may what those before it may."""
NAME: Final = r"[a-z0-9][a-z0-9._@-]{0,127}"

_USERS: Final = """
SELECT u.name, u.display_name, u.administrator, u.disabled, u.created_at, u.last_login_at, u.locked_until,
       coalesce((SELECT json_agg(json_build_array(g.tenant_id, g.role) ORDER BY g.tenant_id) FROM console_grant g
                 WHERE g.user_id = u.user_id), '[]')
FROM console_user u WHERE %(name)s IS NULL OR u.name = %(name)s ORDER BY u.name"""


@dataclass(frozen=True)
class User:
    """One user. `tenants` are pairs of tenant and role."""

    name: str
    display_name: str
    administrator: bool
    disabled: bool
    created_at: datetime
    last_login_at: datetime | None
    locked_until: datetime | None
    tenants: tuple[tuple[str, Role], ...]


def list_users(connection: Connection, name: str | None = None) -> list[User]:
    """All users by name, or the one of this name."""
    with connection, connection.cursor() as cursor:
        return _users(cursor, name)


def grantable(connection: Connection) -> list[str]:
    """Tenants that the console has a login for."""
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT tenant_id FROM console_tenant ORDER BY tenant_id")
        return [tenant for (tenant,) in cursor.fetchall()]


def add(
    connection: Connection,
    name: str,
    password: str | None,
    *,
    display_name: str = "",
    administrator: bool = False,
    tenants: Iterable[tuple[str, Role]] = (),
    by: str,
) -> User:
    """A new user; without a password only a provider can log him in.

    Raises:
        AccountError: the name cannot be, or the password is too short. TakenError. NoSuchAccountError: a tenant without a login.
    """
    if not re.fullmatch(NAME, name):
        raise AccountError("a user's name has 1 to 128 lower-case letters, digits and . _ @ -, and begins with a letter or digit")
    secret = None if password is None else passwords.hashed(password)
    with connection, connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO console_user (name, display_name, password_hash, administrator, created_by, password_set_at)"
            " VALUES (%s, %s, %s, %s, %s, CASE WHEN %s THEN now() END) ON CONFLICT (name) DO NOTHING",
            (name, display_name, secret, administrator, by, secret is not None),
        )
        if cursor.rowcount == 0:
            raise TakenError(f"there is a user {name} already")
        set_grants(cursor, name, tenants, by)
        return _users(cursor, name)[0]


def change(
    connection: Connection,
    name: str,
    *,
    password: str | None = None,
    display_name: str | None = None,
    administrator: bool | None = None,
    disabled: bool | None = None,
    tenants: Iterable[tuple[str, Role]] | None = None,
    by: str,
) -> User:
    """What is None stays. A new password ends the user's sessions and lifts a lock; so does being disabled end them.

    Raises:
        AccountError: the password is too short, or nobody would be left who manages users. NoSuchAccountError.
    """
    secret = None if password is None else passwords.hashed(password)
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT administrator AND NOT disabled FROM console_user WHERE name = %s FOR UPDATE", (name,))
        row = cursor.fetchone()
        if row is None:
            raise NoSuchAccountError(f"there is no user {name}")
        if row[0] and (administrator is False or disabled):
            _require_another(cursor, name)
        cursor.execute(
            "UPDATE console_user SET display_name = coalesce(%(display)s, display_name),"
            " administrator = coalesce(%(admin)s, administrator),"
            " disabled = coalesce(%(disabled)s, disabled), password_hash = coalesce(%(secret)s, password_hash),"
            " password_set_at = CASE WHEN %(secret)s IS NULL THEN password_set_at ELSE now() END,"
            " failures = CASE WHEN %(secret)s IS NULL THEN failures ELSE 0 END,"
            " locked_until = CASE WHEN %(secret)s IS NULL THEN locked_until END WHERE name = %(name)s",
            {"display": display_name, "admin": administrator, "disabled": disabled, "secret": secret, "name": name},
        )
        if secret is not None or disabled:
            _end_sessions(cursor, name)
        if tenants is not None:
            cursor.execute("DELETE FROM console_grant g USING console_user u WHERE u.user_id = g.user_id AND u.name = %s", (name,))
            set_grants(cursor, name, tenants, by)
        return _users(cursor, name)[0]


def remove(connection: Connection, name: str) -> None:
    """Remove a user, his sessions and grants. What he did stays in console_action.

    Raises:
        NoSuchAccountError. AccountError: nobody would be left who manages users.
    """
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT administrator AND NOT disabled FROM console_user WHERE name = %s FOR UPDATE", (name,))
        row = cursor.fetchone()
        if row is None:
            raise NoSuchAccountError(f"there is no user {name}")
        if row[0] and len(_users(cursor, None)) > 1:
            _require_another(cursor, name)
        cursor.execute("DELETE FROM console_user WHERE name = %s", (name,))


def set_grants(cursor: Cursor, name: str, tenants: Iterable[tuple[str, Role]], by: str) -> None:
    """Give a user these tenants, beside those that he has. Raises NoSuchAccountError: no such user, or no login for the tenant."""
    for tenant, role in tenants:
        cursor.execute(
            "SELECT (SELECT user_id FROM console_user WHERE name = %s), EXISTS (SELECT FROM console_tenant WHERE tenant_id = %s)",
            (name, tenant),
        )
        user, there = cursor.fetchone() or (None, False)
        if user is None:
            raise NoSuchAccountError(f"there is no user {name}: `iot console user add {name}` makes one")
        if not there:
            raise NoSuchAccountError(f"the console has no login for tenant {tenant}: `iot console user grant {name} {tenant}` makes one")
        cursor.execute(
            "INSERT INTO console_grant (user_id, tenant_id, role, granted_by) VALUES (%s, %s, %s, %s) ON CONFLICT (user_id, tenant_id)"
            " DO UPDATE SET role = excluded.role, granted_by = excluded.granted_by, granted_at = now()"
            " WHERE console_grant.role <> excluded.role",
            (user, tenant, role, by),
        )


def ungrant(connection: Connection, name: str, tenant: str) -> bool:
    """Take a tenant from a user; False: he had not got it. Raises NoSuchAccountError."""
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT FROM console_user WHERE name = %s", (name,))
        if cursor.fetchone() is None:
            raise NoSuchAccountError(f"there is no user {name}")
        cursor.execute(
            "DELETE FROM console_grant g USING console_user u WHERE u.user_id = g.user_id AND u.name = %s AND g.tenant_id = %s",
            (name, tenant),
        )
        return cursor.rowcount > 0


def _users(cursor: Cursor, name: str | None) -> list[User]:
    cursor.execute(_USERS, {"name": name})
    found = []
    for called, display, administrator, disabled, created, login, locked, grants in cursor.fetchall():
        tenants: tuple[tuple[str, Role], ...] = tuple((tenant, role) for tenant, role in grants)
        found.append(User(called, display, administrator, disabled, created, login, locked, tenants))
    return found


def _end_sessions(cursor: Cursor, name: str) -> None:
    cursor.execute("DELETE FROM console_session s USING console_user u WHERE u.user_id = s.user_id AND u.name = %s", (name,))


def _require_another(cursor: Cursor, name: str) -> None:
    cursor.execute("SELECT EXISTS (SELECT FROM console_user WHERE administrator AND NOT disabled AND name <> %s)", (name,))
    if cursor.fetchone() != (True,):
        raise AccountError(f"{name} is the only one who manages users: make somebody else an administrator first")
