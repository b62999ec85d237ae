"""The login by which the console reads a tenant: one for each tenant that somebody was granted, beside the tenant's own.

Its password is HMAC-SHA-256 of the role's name by the key of the console: nobody stores it, and whoever has the key can say it again.
"""

import hashlib
import hmac
from pathlib import Path
from typing import Final

import psycopg2
from psycopg2.extensions import cursor as Cursor  # noqa: N812

from ingest_daemon.errors import SettingsError
from ingest_daemon.server_settings import text
from iot_platform.settings import Settings
from iot_platform.tenants.access import (
    CONNECTIONS,
    TenantAccessError,
    check_login,
    lock_logins,
    new_role,
    remedy,
    require_tenant_id,
    set_up_login,
)

STATEMENT_SECONDS: Final = 15
"""What a statement of the console may take."""
LEAST_KEY_BYTES: Final = 32


def read_key(settings: Settings) -> bytes:
    """The console's key. Raises SettingsError: IOT_CONSOLE_KEY_FILE is not set, cannot be read, or is too short."""
    if settings.console_key_file is None:
        raise SettingsError(
            "IOT_CONSOLE_KEY_FILE is not set: make a key (umask 077; openssl rand -base64 48 >console.key) and name the file; `iot up`"
            " makes its own"
        )
    key = _key(settings.console_key_file)
    if len(key) < LEAST_KEY_BYTES:
        raise SettingsError(f"IOT_CONSOLE_KEY_FILE: {settings.console_key_file} holds less than {LEAST_KEY_BYTES} bytes")
    return key


def _key(file: Path) -> bytes:
    return text(file, "IOT_CONSOLE_KEY_FILE").strip().encode()


def password(key: bytes, role: str) -> str:
    """The password of a console's login."""
    return hmac.new(key, b"console-login\x00" + role.encode(), hashlib.sha256).hexdigest()


def ensure(cursor: Cursor, key: bytes, tenant_id: str) -> str:
    """Inside a transaction of the owner: the tenant's login for the console, made or brought up to date (also after a change of the key).
    Returns the role's name.

    Raises:
        TenantAccessError: the owner may not make roles, the tenant's id cannot be, or the login could do more than read its views.
    """
    require_tenant_id(tenant_id)
    if "/" in tenant_id or tenant_id in (".", ".."):
        raise TenantAccessError("the console cannot show a tenant whose id holds a / or is . or ..: its pages' addresses name the tenant")
    lock_logins(cursor)
    cursor.execute("SELECT role_name FROM console_tenant WHERE tenant_id = %s", (tenant_id,))
    row = cursor.fetchone()
    role = str(row[0]) if row else new_role()
    try:
        set_up_login(cursor, role, password(key, role), CONNECTIONS, STATEMENT_SECONDS)
    except psycopg2.errors.InsufficientPrivilege as error:
        raise TenantAccessError(remedy(error)) from error
    cursor.execute(
        "INSERT INTO console_tenant (tenant_id, role_name, statement_seconds) VALUES (%s, %s, %s) ON CONFLICT (tenant_id) DO UPDATE"
        " SET statement_seconds = excluded.statement_seconds",
        (tenant_id, role, STATEMENT_SECONDS),
    )
    check_login(cursor, role)
    return role
