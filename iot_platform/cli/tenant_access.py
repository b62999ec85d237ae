"""`iot tenant grant|revoke|access`: logins that read one tenant's data and nothing else."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from iot_platform.cli import terminal
from iot_platform.cli.errors import CliError

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection  # noqa: N812

    from iot_platform.settings import Settings
    from iot_platform.tenants.access import Granted

_Tenant = Annotated[str, typer.Argument(help="Id of the tenant, as its topics name it.", show_default=False)]


def register(tenant_app: typer.Typer) -> None:
    """Add the commands to `iot tenant`."""
    tenant_app.command("grant")(grant_command)
    tenant_app.command("revoke")(revoke_command)
    tenant_app.command("access")(access_command)


def grant_command(
    tenant: _Tenant,
    rotate: Annotated[bool, typer.Option("--rotate", help="A new password for a login that exists; ends its sessions.")] = False,
    password_file: Annotated[
        Path | None, typer.Option(help="Write a new password there (readable by you only) instead of showing it.", dir_okay=False)
    ] = None,
    connections: Annotated[int, typer.Option(min=1, max=1000, help="Connections that the login may have at a time.")] = 10,
    statement_seconds: Annotated[int, typer.Option(min=1, max=86400, help="A statement that takes longer is ended, by default.")] = 30,
) -> None:
    """Give a tenant a login that reads its own rows in the views of schema tenant, and nothing else. May be repeated.

    The password is shown once and stored nowhere: [b]--rotate[/b] makes another one.

    [b]iot tenant grant 1968193631353446400 --password-file tenant.password[/b]
    """
    from iot_platform.tenants import access

    def deliver(granted: "Granted") -> None:
        if password_file is not None and granted.password is not None:
            _write(password_file, granted.password)

    with _owner() as (settings, connection):
        granted = access.grant(
            connection, tenant, rotate=rotate, connections=connections, statement_seconds=statement_seconds, deliver=deliver
        )
        for text in _told(granted, settings, password_file):
            terminal.echo(text)
    if not granted.known:
        terminal.echo(f"note: no message of tenant {tenant} has arrived yet", err=True)
    if granted.elsewhere:
        terminal.echo(
            f"note: every login of this server may connect to {', '.join(granted.elsewhere)}, too;"
            " REVOKE CONNECT ON DATABASE … FROM PUBLIC ends that",
            err=True,
        )


def revoke_command(tenant: _Tenant) -> None:
    """Remove a tenant's login and end its sessions. Its data stays. May be repeated."""
    from iot_platform.tenants import access

    with _owner() as (_, connection):
        role = access.revoke(connection, tenant)
    terminal.echo(f"login {role} of tenant {tenant} is gone" if role else f"tenant {tenant} has no login")


def access_command(as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False) -> None:
    """List the logins of tenants."""
    from iot_platform.tenants import access

    with _owner() as (_, connection):
        found = access.list_access(connection)
    if as_json:
        for item in found:
            row = {
                "tenant": item.tenant_id,
                "login": item.role,
                "granted_at": item.granted_at.isoformat(),
                "password_set_at": item.password_set_at.isoformat(),
                "connections": item.connections,
                "connection_limit": item.limit,
            }
            terminal.echo_json(row)
        return
    from rich.table import Column, Table
    from rich.text import Text

    if not found:
        terminal.echo("no tenant has a login: `iot tenant grant` makes one")
        return
    table = Table("tenant", Column("login", no_wrap=True), "granted", "password set", "connections")
    for item in found:
        used = f"{item.connections} of {item.limit}" if item.limit is not None else "role is gone: grant again"
        times = (f"{time:%Y-%m-%d %H:%M}" for time in (item.granted_at, item.password_set_at))
        table.add_row(Text(item.tenant_id), item.role, *times, used)
    terminal.console().print(table)


@contextmanager
def _owner() -> "Iterator[tuple[Settings, Connection]]":
    """The settings and a connection as the owner of the database; its errors become ours."""
    from iot_platform.database import DatabaseError, connect
    from iot_platform.database.migrate import require_migrated
    from iot_platform.settings import get_settings

    settings = get_settings()
    try:
        connection = connect(settings, "admin", "iot-tenant")
        try:
            require_migrated(connection)
            yield settings, connection
        finally:
            connection.close()
    except DatabaseError as error:
        raise CliError(str(error)) from error


def _told(granted: "Granted", settings: "Settings", password_file: Path | None) -> Iterator[str]:
    parts = urlsplit(settings.admin_url)
    where = f"{parts.hostname or '127.0.0.1'}:{parts.port or 5432}{parts.path}"
    yield f"tenant    {granted.tenant_id}"
    yield f"login     {granted.role} ({'created' if granted.created else 'was there'})"
    yield f"url       postgresql://{granted.role}@{where}"
    if granted.password is None:
        yield "password  unchanged; --rotate makes a new one"
    elif password_file is None:
        yield f"password  {granted.password}"
    else:
        yield f"password  in {password_file}"


def _write(path: Path, password: str) -> None:
    """Replace the file by one that only its owner can read; never through a link."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(password + "\n")
    except OSError as error:
        raise CliError(f"cannot write {path} ({error.strerror}): nothing was changed") from error
