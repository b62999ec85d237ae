"""`iot console user`: who may log in to the console, and which tenants he sees."""

from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from iot_platform.cli import terminal
from iot_platform.cli.console_owner import new_password, owner, who
from iot_platform.cli.errors import CliError

_Name = Annotated[str, typer.Argument(help="Name of the user, as he logs in.", show_default=False)]
_Tenant = Annotated[str, typer.Argument(help="Id of the tenant, as its topics name it.", show_default=False)]
_File = Annotated[Path | None, typer.Option("--password-file", help="Read the password there instead of asking.", dir_okay=False)]


class RoleName(StrEnum):
    """What a user may do in a tenant."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


def register(console: typer.Typer) -> None:
    """Add the commands to `iot console`."""
    user = typer.Typer(name="user", help="Users of the console.", no_args_is_help=True)
    user.command("add")(add_command)
    user.command("list")(list_command)
    user.command("password")(password_command)
    user.command("grant")(grant_command)
    user.command("revoke")(revoke_command)
    user.command("remove")(remove_command)
    console.add_typer(user)


def add_command(
    name: _Name,
    display_name: Annotated[str, typer.Option(help="What people call him.")] = "",
    admin: Annotated[bool, typer.Option("--admin", help="He manages users and API keys, too.")] = False,
    password_file: _File = None,
    no_password: Annotated[bool, typer.Option("--no-password", help="He logs in through a provider only.")] = False,
) -> None:
    """Add a user. He sees no tenant until he is granted one.

    [b]iot console user add lin --display-name "林工"[/b]
    """
    from iot_platform.accounts import users

    with owner() as (_, connection):
        password = None if no_password else new_password(password_file)
        users.add(connection, name, password, display_name=display_name, administrator=admin, by=who())
    terminal.echo(f"user {name} is there; `iot console user grant {name} TENANT` shows him a tenant")


def list_command(as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False) -> None:
    """List the users, and what they see."""
    from iot_platform.accounts import users

    with owner() as (_, connection):
        found = users.list_users(connection)
    if as_json:
        for item in found:
            terminal.echo_json({**vars(item), "tenants": [{"tenant": tenant, "role": role} for tenant, role in item.tenants]})
        return
    from rich.table import Table
    from rich.text import Text

    if not found:
        terminal.echo("there is no user: `iot console user add` makes one")
        return
    table = Table("user", "called", "manages users", "tenants", "last login", "state")
    for item in found:
        state = "disabled" if item.disabled else "locked" if item.locked_until and item.locked_until > _now(item.locked_until) else ""
        tenants = Text("\n".join(f"{tenant} ({role})" for tenant, role in item.tenants))
        table.add_row(item.name, Text(item.display_name), "yes" if item.administrator else "", tenants, _minute(item.last_login_at), state)
    terminal.console().print(table)


def password_command(name: _Name, password_file: _File = None) -> None:
    """Give a user another password. His sessions end, and a lock is lifted."""
    from iot_platform.accounts import users

    with owner() as (_, connection):
        users.change(connection, name, password=new_password(password_file), by=who())
    terminal.echo(f"user {name} has a new password; his sessions have ended")


def grant_command(
    name: _Name,
    tenant: _Tenant,
    role: Annotated[
        RoleName, typer.Option(help="viewer reads; operator also replays and edits rules; admin also makes API keys.")
    ] = RoleName.VIEWER,
    called: Annotated[str | None, typer.Option(help="What the console calls the tenant, instead of its id.")] = None,
) -> None:
    """Let a user see a tenant, or change what he may do there. May be repeated, also after a change of the key in IOT_CONSOLE_KEY_FILE.

    The console gets a database login for the tenant, which reads its rows and nothing else.

    [b]iot console user grant lin 1968193631353446400 --role operator --called "一号工厂"[/b]
    """
    from iot_platform.accounts import tenants
    from iot_platform.tenants.console_login import read_key

    with owner() as (settings, connection):
        known = tenants.grant(connection, read_key(settings), name, tenant, role.value, by=who())
        if called is not None:
            tenants.name_tenant(connection, tenant, called)
    terminal.echo(f"user {name} sees tenant {tenant} as {role.value}")
    if not known:
        terminal.echo(f"note: no message of tenant {tenant} has arrived yet", err=True)


def revoke_command(
    name: Annotated[str | None, typer.Argument(help="Name of the user.", show_default=False)] = None,
    tenant: Annotated[str | None, typer.Argument(help="Id of the tenant.", show_default=False)] = None,
    whole_tenant: Annotated[
        str | None, typer.Option(help="Take this tenant from all users and API keys, and drop the console's login for it.")
    ] = None,
) -> None:
    """Take a tenant from a user; or, with --whole-tenant, out of the console. It counts at once. Data stays."""
    from iot_platform.accounts import users
    from iot_platform.tenants import access

    if (whole_tenant is None) == (name is None) or (name is None) != (tenant is None):
        raise CliError("say which user and which tenant, or --whole-tenant TENANT")
    with owner() as (_, connection):
        if whole_tenant is not None:
            role = access.revoke(connection, whole_tenant, console=True)
            terminal.echo(f"tenant {whole_tenant} is out of the console" if role else f"the console has no login for tenant {whole_tenant}")
        elif name is not None and tenant is not None:
            had = users.ungrant(connection, name, tenant)
            terminal.echo(f"user {name} no longer sees tenant {tenant}" if had else f"user {name} did not see tenant {tenant}")


def remove_command(name: _Name) -> None:
    """Remove a user. What he did stays in the log of writes."""
    from iot_platform.accounts import users

    with owner() as (_, connection):
        users.remove(connection, name)
    terminal.echo(f"user {name} is gone")


def _now(like: datetime) -> datetime:
    return datetime.now(like.tzinfo)


def _minute(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M}" if moment else "–"
