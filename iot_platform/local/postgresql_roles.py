"""Roles and databases of the local PostgreSQL, made by its superuser. Everything here may be repeated."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg2
from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class under a lower-case name

from iot_platform.files import SQL
from iot_platform.local.passwords import Passwords

HARDEN = SQL / "superuser" / "harden_database.sql"
"""What a superuser takes from PUBLIC in a new database."""
_RIGHTS = """REVOKE ALL ON DATABASE {0} FROM PUBLIC; GRANT CONNECT, TEMPORARY ON DATABASE {0} TO iot_writer;
GRANT CONNECT ON DATABASE {0} TO iot_reader, iot_tenant, iot_console"""
"""As sql/repeatable/grants.sql has them."""
_ATTRIBUTES = {
    "iot_migrator": "LOGIN CREATEROLE",
    "iot_writer": "LOGIN",
    "iot_reader": "LOGIN",
    "iot_console": "LOGIN",
    "iot_monitor": "LOGIN CONNECTION LIMIT 3",
}


def create_roles(superuser_url: str, passwords: Passwords) -> None:
    """Login roles with the given passwords; existing ones get them too."""
    with _cursor(superuser_url) as cursor:
        for role, attributes in _ATTRIBUTES.items():
            cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,))
            verb = "ALTER" if cursor.fetchone() else "CREATE"
            statement = sql.SQL("{verb} ROLE {role} WITH {attributes} PASSWORD {password}").format(
                verb=sql.SQL(verb), role=sql.Identifier(role), attributes=sql.SQL(attributes), password=sql.Literal(passwords.of(role))
            )
            cursor.execute(statement)
        # The owner of the tables hands out rights to the roles, so it must be able to grant them.
        cursor.execute("GRANT iot_writer, iot_reader TO iot_migrator WITH ADMIN OPTION")
        # Of the server's own figures all, of the platform's database nothing: it may not even connect there.
        cursor.execute("GRANT pg_monitor TO iot_monitor")
        cursor.execute("GRANT CONNECT ON DATABASE postgres TO iot_monitor")
        # Twenty tenants' logins of 10 connections each are all that a server has.
        cursor.execute("SELECT FROM pg_roles WHERE rolname = 'pg_use_reserved_connections'")
        if cursor.fetchone() is not None:  # PostgreSQL 16
            cursor.execute("GRANT pg_use_reserved_connections TO iot_migrator, iot_writer, iot_reader, iot_console")


def close_other_databases(superuser_url: str) -> None:
    """Tenants' logins (which the migrator makes: CREATEROLE) have no business outside the platform's database."""
    with _cursor(superuser_url) as cursor:
        cursor.execute("REVOKE CONNECT ON DATABASE postgres, template1 FROM PUBLIC")


def create_database(superuser_url: str, name: str, template: str | None = None) -> None:
    """A database of iot_migrator with TimescaleDB, or a copy of a template."""
    with _cursor(superuser_url) as cursor:
        cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,))
        if cursor.fetchone() is None:
            statement = sql.SQL("CREATE DATABASE {} OWNER iot_migrator {}").format(
                sql.Identifier(name),
                sql.SQL("TEMPLATE {} STRATEGY file_copy").format(sql.Identifier(template)) if template else sql.SQL(""),
            )
            cursor.execute(statement)
            cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,))
            if template and cursor.fetchone():  # a copy has everything but its template's rights on the database itself
                cursor.execute(sql.SQL(_RIGHTS).format(sql.Identifier(name)))
    if template is None:
        with _cursor(superuser_url.rsplit("/", 1)[0] + f"/{name}") as cursor:
            cursor.execute("CREATE EXTENSION IF NOT EXISTS timescaledb")
            cursor.execute("ALTER SCHEMA public OWNER TO iot_migrator")
            cursor.execute(HARDEN.read_text("utf-8"))


@contextmanager
def _cursor(url: str) -> Iterator[Cursor]:
    connection = psycopg2.connect(url, connect_timeout=10)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            yield cursor
    finally:
        connection.close()
