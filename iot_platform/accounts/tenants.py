"""Granting a tenant, as the owner of the database: the console's login for it is made first, in the same transaction."""

import psycopg2
from psycopg2.extensions import connection as Connection  # noqa: N812

from iot_platform.accounts.users import Role, set_grants
from iot_platform.tenants import console_login
from iot_platform.tenants.access import TenantAccessError


def grant(connection: Connection, key: bytes, name: str, tenant: str, role: Role, *, by: str) -> bool:
    """Let a user see a tenant; also renews the console's login after a change of the key. Returns whether anything of the tenant is known.

    Raises:
        AccountError: no such user. TenantAccessError: the login cannot be made.
    """
    try:
        with connection, connection.cursor() as cursor:
            console_login.ensure(cursor, key, tenant)
            set_grants(cursor, name, [(tenant, role)], by)
            cursor.execute("SELECT EXISTS (SELECT FROM project WHERE tenant_id = %s)", (tenant,))
            return cursor.fetchone() == (True,)
    except psycopg2.errors.UndefinedTable as error:
        raise TenantAccessError("the database has no tables of the console yet: `iot migrate`") from error


def name_tenant(connection: Connection, tenant: str, name: str) -> bool:
    """What people call the tenant; False where the console has no login for it."""
    with connection, connection.cursor() as cursor:
        cursor.execute("UPDATE console_tenant SET name = %s WHERE tenant_id = %s", (name, tenant))
        return cursor.rowcount > 0


def prepare(connection: Connection, key: bytes, tenant: str) -> None:
    """The console's login for a tenant, for an API key. Raises TenantAccessError."""
    with connection, connection.cursor() as cursor:
        console_login.ensure(cursor, key, tenant)
