"""API keys: each reads one tenant. As the owner of the database, or as iot_console; autocommit off, each function is one transaction."""

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from psycopg2.extensions import connection as Connection  # noqa: N812

from iot_platform.accounts.errors import AccountError, NoSuchAccountError, TakenError

PREFIX: Final = "iot_"
"""By which people, and scanners of source code, know one."""
_LIST: Final = """
SELECT key_id, tenant_id, name, created_at, created_by, expires_at, last_used_at FROM api_key
WHERE %(tenant)s IS NULL OR tenant_id = %(tenant)s ORDER BY tenant_id, name"""


@dataclass(frozen=True)
class ApiKey:
    """A key without its secret."""

    key_id: int
    tenant: str
    name: str
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    last_used_at: datetime | None


def digest(secret: str) -> bytes:
    """What is stored of a key, and of a session's token: 256 random bits need no slow hash."""
    return hashlib.sha256(secret.encode("utf-8", "replace")).digest()


def list_keys(connection: Connection, tenant: str | None = None) -> list[ApiKey]:
    """All keys, or a tenant's."""
    with connection, connection.cursor() as cursor:
        cursor.execute(_LIST, {"tenant": tenant})
        return [ApiKey(*row) for row in cursor.fetchall()]


def add(connection: Connection, tenant: str, name: str, *, expires_at: datetime | None = None, by: str) -> tuple[int, str]:
    """A new key: its id, and its secret, which nobody can say again.

    Raises:
        TakenError. NoSuchAccountError: the console has no login for the tenant. AccountError: the name is empty.
    """
    if not 1 <= len(name) <= 128 or "\x00" in name:
        raise AccountError("a key has a name of 1 to 128 characters")
    secret = PREFIX + secrets.token_urlsafe(32)
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT FROM console_tenant WHERE tenant_id = %s", (tenant,))
        if cursor.fetchone() is None:
            raise NoSuchAccountError(f"the console has no login for tenant {tenant}: `iot console key add` makes one")
        cursor.execute(
            "INSERT INTO api_key (tenant_id, name, key_sha256, expires_at, created_by) VALUES (%s, %s, %s, %s, %s)"
            " ON CONFLICT (tenant_id, name) DO NOTHING RETURNING key_id",
            (tenant, name, digest(secret), expires_at, by),
        )
        row = cursor.fetchone()
        if row is None:
            raise TakenError(f"tenant {tenant} has a key {name} already: rotate it, or take another name")
    return int(row[0]), secret


def rotate(connection: Connection, tenant: str, name: str) -> str:
    """Another secret for a key; the old one ends at once. Raises NoSuchAccountError."""
    secret = PREFIX + secrets.token_urlsafe(32)
    with connection, connection.cursor() as cursor:
        cursor.execute(
            "UPDATE api_key SET key_sha256 = %s, created_at = now(), last_used_at = NULL WHERE tenant_id = %s AND name = %s",
            (digest(secret), tenant, name),
        )
        if cursor.rowcount == 0:
            raise NoSuchAccountError(f"tenant {tenant} has no key {name}")
    return secret


def remove(connection: Connection, tenant: str, *, name: str | None = None, key_id: int | None = None) -> None:
    """Remove a key, by name or id; it ends at once. Raises NoSuchAccountError."""
    with connection, connection.cursor() as cursor:
        cursor.execute("DELETE FROM api_key WHERE tenant_id = %s AND (name = %s OR key_id = %s)", (tenant, name, key_id))
        if cursor.rowcount == 0:
            raise NoSuchAccountError(f"tenant {tenant} has no key {name or key_id}")
