"""Logins of tenants: made, renewed and removed as the owner of the database, which needs CREATEROLE.

A login is a member of iot_tenant, which may read the views of schema tenant (sql/repeatable/tenants.sql) and nothing else; table
tenant_role says whose rows those views give it. Connections have autocommit off: grant and revoke are one transaction each.
"""

import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import psycopg2
from psycopg2 import sql
from psycopg2.extensions import connection as Connection  # noqa: N812
from psycopg2.extensions import cursor as Cursor  # noqa: N812
from psycopg2.extensions import encrypt_password

from iot_platform.database.errors import DatabaseError
from iot_platform.database.locks import lock_key

GROUP: Final = "iot_tenant"
CONNECTIONS: Final = 10
STATEMENT_SECONDS: Final = 30
MOST_BYTES: Final = 1024
"""Of a tenant's id, as table tenant_role has it."""
_LOCK: Final = "tenant-access"
_TERMINATE_MILLISECONDS: Final = 5000

_LIST: Final = """
SELECT t.tenant_id, t.role_name, t.granted_at, t.password_set_at, r.rolconnlimit, r.rolcanlogin,
       (SELECT count(*) FROM pg_stat_activity a WHERE a.usename = t.role_name AND a.datname = current_database())
FROM tenant_role t LEFT JOIN pg_roles r ON r.rolname = t.role_name ORDER BY t.tenant_id"""

_UNGUARDED: Final = """
SELECT t.role_name FROM tenant_login t JOIN pg_roles r ON r.rolname = t.role_name
JOIN pg_proc p ON p.oid = 'public.end_tenant_sessions(interval, interval)'::regprocedure
WHERE NOT pg_has_role(p.proowner, r.oid, 'USAGE') ORDER BY 1"""
_GUARDS: Final = """
SELECT current_user::text UNION SELECT rolname FROM pg_proc p JOIN pg_roles r ON r.oid = p.proowner
WHERE p.oid = 'public.end_tenant_sessions(interval, interval)'::regprocedure"""

_TOO_MUCH: Final = """
WITH mine AS (
    SELECT c.oid, c.relname, n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'v', 'm', 'p', 'f') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'tenant') AND n.nspname !~ '^pg_'
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
)
SELECT format('read or change %%I.%%I', nspname, relname) FROM mine
WHERE has_table_privilege(%(role)s, oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')
   OR has_any_column_privilege(%(role)s, oid, 'SELECT, INSERT, UPDATE, REFERENCES')
UNION ALL
SELECT format('create objects in schema %%I', nspname) FROM pg_namespace
WHERE nspname !~ '^pg_' AND has_schema_privilege(%(role)s, oid, 'CREATE')
UNION ALL
SELECT format('execute %%s',
              string_agg(proname, ', ' ORDER BY proname) FILTER (WHERE place <= 3) || CASE WHEN max(place) > 3 THEN ' …' ELSE '' END)
FROM (
    SELECT p.proname, row_number() OVER (ORDER BY p.proname ~ '^drop_' DESC, p.proname) AS place FROM pg_proc p
    JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
    JOIN pg_extension e ON e.oid = d.refobjid AND d.refclassid = 'pg_extension'::regclass
    WHERE e.extname = 'timescaledb' AND p.provolatile = 'v' AND p.prokind IN ('f', 'p') AND p.prorettype <> 'trigger'::regtype
      AND p.proname NOT IN ('time_bucket_gapfill', 'locf', 'interpolate') AND has_function_privilege(%(role)s, p.oid, 'EXECUTE')
    UNION ALL
    SELECT p.proname, 0 FROM pg_proc p WHERE p.oid = 'pg_catalog.pg_advisory_lock(bigint)'::regprocedure
      AND has_function_privilege(%(role)s, p.oid, 'EXECUTE')
) f HAVING count(*) > 0
UNION ALL
SELECT 'make temporary tables and functions' WHERE has_database_privilege(%(role)s, current_database(), 'TEMPORARY')
UNION ALL
SELECT format('act as role %%I', rolname) FROM pg_roles
WHERE rolname NOT IN (%(role)s, 'iot_tenant') AND pg_has_role(%(role)s, oid, 'MEMBER')
ORDER BY 1"""

_ELSEWHERE: Final = """
SELECT datname FROM pg_database WHERE datallowconn AND datname <> current_database()
  AND has_database_privilege(%s, oid, 'CONNECT') ORDER BY 1"""


class TenantAccessError(DatabaseError):
    """A login can't be made or removed as asked; the message says what to do. Never retry."""


@dataclass(frozen=True)
class Granted:
    """What `grant` did. `password` only if there is a new one; `elsewhere` are other databases that the login may connect to."""

    tenant_id: str
    role: str
    created: bool
    password: str | None = field(repr=False)
    known: bool
    elsewhere: tuple[str, ...]


@dataclass(frozen=True)
class Access:
    """One tenant's login. `limit` is None where the role is gone from the server or may not log in: `grant` makes it anew."""

    tenant_id: str
    role: str
    granted_at: datetime
    password_set_at: datetime
    limit: int | None
    connections: int


def grant(
    connection: Connection,
    tenant_id: str,
    *,
    rotate: bool = False,
    connections: int = CONNECTIONS,
    statement_seconds: int = STATEMENT_SECONDS,
    deliver: Callable[[Granted], None] = lambda _: None,
) -> Granted:
    """Give the tenant a login, or bring the one it has up to these limits; a new password only for a new login or with `rotate`.

    `deliver` gets the result just before the commit: if it raises, nothing has changed. The server gets a SCRAM verifier, never the
    password.

    Raises:
        TenantAccessError: the owner may not create roles, or the login could do more than read its views.
    """
    require_tenant_id(tenant_id)
    try:
        with connection.cursor() as cursor:
            granted = _grant(cursor, tenant_id, rotate, connections, statement_seconds)
            deliver(granted)
        connection.commit()
        if rotate and not granted.created:  # who logged in with the old password is out, too
            with connection.cursor() as cursor:
                _end_sessions(cursor, granted.role)
            connection.commit()
    except psycopg2.errors.InsufficientPrivilege as error:
        raise TenantAccessError(remedy(error)) from error
    finally:
        if not connection.closed:
            connection.rollback()  # nothing to do after the commit
    return granted


def require_tenant_id(tenant_id: str) -> None:
    """Raises TenantAccessError where no tenant can have this id."""
    if not 1 <= len(tenant_id.encode()) <= MOST_BYTES or "\x00" in tenant_id:
        raise TenantAccessError(f"a tenant has an id of 1 to {MOST_BYTES:,} bytes, none of them U+0000")


def revoke(connection: Connection, tenant_id: str, *, console: bool = False) -> str | None:
    """Remove the tenant's login and end its sessions; its data stays. `console`: the console's login instead, and with it everybody's
    access there. Returns the name of the role that was, None if there was none.

    Raises:
        TenantAccessError: the owner may not do it, or the role still owns something in another database (it can't log in any more then).
    """
    try:
        with connection.cursor() as cursor:
            role, rest = drop_login(cursor, tenant_id, console=console)
        connection.commit()
    except psycopg2.errors.InsufficientPrivilege as error:
        raise TenantAccessError(remedy(error)) from error
    finally:
        if not connection.closed:
            connection.rollback()
    if rest:
        raise TenantAccessError(
            f"the login {role} is shut, but the role is still there ({rest}): a superuser can DROP OWNED there, then DROP ROLE"
        )
    return role


def drop_login(cursor: Cursor, tenant_id: str, *, console: bool = False) -> tuple[str | None, str]:
    """Inside a transaction of the owner: remove the tenant's login, if it has one, or that of the console, with all users' and keys' access
    to the tenant. Returns the role's name, and why the role could only be shut and not dropped (else empty)."""
    lock_logins(cursor)
    table = sql.Identifier("console_tenant" if console else "tenant_role")
    cursor.execute(sql.SQL("DELETE FROM {} WHERE tenant_id = %s RETURNING role_name").format(table), (tenant_id,))
    row = cursor.fetchone()
    if row is None:
        return None, ""
    role = str(row[0])
    if not _exists(cursor, role):
        return role, ""
    name = sql.Identifier(role)
    cursor.execute(sql.SQL("ALTER ROLE {} NOLOGIN PASSWORD NULL").format(name))
    _end_sessions(cursor, role)
    cursor.execute("SAVEPOINT drop_role")
    try:
        cursor.execute(sql.SQL("DROP OWNED BY {}").format(name))
        cursor.execute(sql.SQL("DROP ROLE {}").format(name))
    except psycopg2.errors.DependentObjectsStillExist as error:
        cursor.execute("ROLLBACK TO SAVEPOINT drop_role")
        cursor.execute(sql.SQL("REVOKE {} FROM {}").format(sql.Identifier(GROUP), name))
        return role, " ".join((error.diag.message_detail or str(error)).split())
    return role, ""


def _end_sessions(cursor: Cursor, role: str) -> None:
    _join(cursor, role)
    cursor.execute(
        "SELECT pg_terminate_backend(pid, %s) FROM pg_stat_activity WHERE usename = %s AND pid <> pg_backend_pid()",
        (_TERMINATE_MILLISECONDS, role),
    )


def _join(cursor: Cursor, role: str) -> None:
    """The right to see and end the login's sessions, for us and for end_tenant_sessions, and to drop what it owns."""
    cursor.execute(_GUARDS)
    for (guard,) in cursor.fetchall():
        cursor.execute(sql.SQL("GRANT {} TO {}").format(sql.Identifier(role), sql.Identifier(guard)))


def too_much(connection: Connection) -> list[str]:
    """What every tenant's login may do beyond reading its views: after an update of TimescaleDB, what its new functions do."""
    with connection.cursor() as cursor:
        found = _too_much(cursor, GROUP)
    connection.rollback()
    return found


def unguarded(connection: Connection) -> list[str]:
    """Logins whose sessions end_tenant_sessions may not see and end: `grant`, repeated, changes that if the one who asks may."""
    with connection.cursor() as cursor:
        cursor.execute(_UNGUARDED)
        rows = cursor.fetchall()
    connection.rollback()
    return [str(role) for (role,) in rows]


def list_access(connection: Connection) -> list[Access]:
    """All logins of tenants."""
    with connection.cursor() as cursor:
        cursor.execute(_LIST)
        rows = cursor.fetchall()
    connection.rollback()
    return [
        Access(tenant, role, granted, password, limit if login else None, used)
        for tenant, role, granted, password, limit, login, used in rows
    ]


def lock_logins(cursor: Cursor) -> None:
    """Until the end of the transaction nobody else makes or removes a login."""
    cursor.execute("SELECT pg_advisory_xact_lock(%s)", (lock_key(_LOCK),))


def new_role() -> str:
    """A name for a login, which tells nothing."""
    return f"{GROUP}_{secrets.token_hex(6)}"


def set_up_login(cursor: Cursor, role: str, password: str | None, connections: int, statement_seconds: int) -> None:
    """Make the role, or bring it up to this; it is in no table yet. The server gets a SCRAM verifier, never the password (None: it stays).

    Raises:
        TenantAccessError, psycopg2.errors.InsufficientPrivilege: the owner may not create roles.
    """
    if not _exists(cursor, GROUP):
        raise TenantAccessError(
            "role iot_tenant does not exist, because the owner of the database may not create roles: let a superuser run"
            " CREATE ROLE iot_tenant NOLOGIN, then repeat `iot migrate`"
        )
    name = sql.Identifier(role)
    if not _exists(cursor, role):
        cursor.execute(sql.SQL("CREATE ROLE {} NOLOGIN").format(name))
    if password is not None:
        verifier = encrypt_password(password, role, cursor.connection, "scram-sha-256")
        cursor.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(name, sql.Literal(verifier)))
    cursor.execute(sql.SQL("ALTER ROLE {} LOGIN CONNECTION LIMIT {}").format(name, sql.Literal(connections)))
    for setting, value in _session(statement_seconds).items():
        cursor.execute(sql.SQL("ALTER ROLE {} SET {} = {}").format(name, sql.Identifier(setting), sql.Literal(value)))
    _join(cursor, role)
    cursor.execute("SELECT pg_has_role(%s, %s, 'MEMBER')", (role, GROUP))
    if cursor.fetchone() != (True,):
        cursor.execute(sql.SQL("GRANT {} TO {}").format(sql.Identifier(GROUP), name))


def _grant(cursor: Cursor, tenant_id: str, rotate: bool, connections: int, statement_seconds: int) -> Granted:
    lock_logins(cursor)
    cursor.execute("SELECT role_name FROM tenant_role WHERE tenant_id = %s", (tenant_id,))
    row = cursor.fetchone()
    role = str(row[0]) if row else new_role()
    created = not _exists(cursor, role)
    password = secrets.token_urlsafe(24) if created or rotate else None
    set_up_login(cursor, role, password, connections, statement_seconds)
    cursor.execute(
        "INSERT INTO tenant_role (tenant_id, role_name, statement_seconds) VALUES (%s, %s, %s) ON CONFLICT (tenant_id) DO UPDATE"
        " SET statement_seconds = excluded.statement_seconds,"
        " password_set_at = CASE WHEN %s THEN now() ELSE tenant_role.password_set_at END",
        (tenant_id, role, statement_seconds, password is not None),
    )
    check_login(cursor, role)
    cursor.execute(_ELSEWHERE, (role,))
    elsewhere = tuple(str(found) for (found,) in cursor.fetchall())
    cursor.execute("SELECT EXISTS (SELECT FROM project WHERE tenant_id = %s)", (tenant_id,))
    return Granted(tenant_id, role, created, password, cursor.fetchone() == (True,), elsewhere)


def _session(statement_seconds: int) -> dict[str, str]:
    """What a session of the login begins with. A tenant may change these: they keep mistakes small, the rights keep tenants apart, and
    end_tenant_sessions ends what goes on too long."""
    return {
        "search_path": "tenant",
        "default_transaction_read_only": "on",
        "statement_timeout": f"{statement_seconds}s",
        "idle_in_transaction_session_timeout": "60s",
        "timezone": "UTC",
    }


def check_login(cursor: Cursor, role: str) -> None:
    """Refuse a login that could do more than read its views, no matter who granted that."""
    cursor.execute(
        "SELECT rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls FROM pg_roles WHERE rolname = %s", (role,)
    )
    if cursor.fetchone() != (False,):
        raise TenantAccessError(f"role {role} has rights on the whole server (superuser, createrole …): a superuser must take them away")
    if found := _too_much(cursor, role):
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        harden = "let a superuser run sql/superuser/harden_database.sql (again after each ALTER EXTENSION UPDATE)"
        remedy = harden if any(item.startswith("execute ") for item in found) else "REVOKE it (as the owner of the object)"
        raise TenantAccessError(
            f"a login of a tenant could {', '.join(found[:3])}{more}, because PUBLIC or {GROUP} has that right: {remedy}, then repeat"
        )


def _too_much(cursor: Cursor, role: str) -> list[str]:
    cursor.execute(_TOO_MUCH, {"role": role})
    return [str(text) for (text,) in cursor.fetchall()]


def _exists(cursor: Cursor, role: str) -> bool:
    cursor.execute("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = %s)", (role,))
    return cursor.fetchone() == (True,)


def remedy(error: psycopg2.Error) -> str:
    """What to do where the owner may not manage roles."""
    message = re.sub(r"\s+", " ", str(error)).strip()
    return (
        f"the owner of the database may not manage roles ({message}): let a superuser run ALTER ROLE owner CREATEROLE;"
        f" GRANT {GROUP} TO owner WITH ADMIN OPTION, or set IOT_DATABASE_ADMIN_URL to a role that may"
    )
