"""`iot console key`: API keys, each of which reads one tenant."""

from typing import Annotated

import typer

from iot_platform.cli import terminal
from iot_platform.cli.console_owner import owner, who

_Tenant = Annotated[str, typer.Argument(help="Id of the tenant that the key reads.", show_default=False)]
_Name = Annotated[str, typer.Argument(help="What the key is for, such as reports.", show_default=False)]


def register(console: typer.Typer) -> None:
    """Add the commands to `iot console`."""
    key = typer.Typer(name="key", help="API keys: each reads one tenant.", no_args_is_help=True)
    key.command("add")(add_command)
    key.command("list")(list_command)
    key.command("rotate")(rotate_command)
    key.command("remove")(remove_command)
    console.add_typer(key)


def add_command(
    tenant: _Tenant,
    name: _Name,
    days: Annotated[float | None, typer.Option(min=0.001, max=36500, help="The key ends after so many days; unless set, it stays.")] = None,
) -> None:
    """Make a key that reads a tenant through the API. It is shown this once.

    [b]iot console key add 1968193631353446400 reports --days 365[/b]
    """
    from datetime import UTC, datetime, timedelta

    from iot_platform.accounts import keys, tenants
    from iot_platform.tenants.console_login import read_key

    ends = datetime.now(UTC) + timedelta(days=days) if days is not None else None
    with owner() as (settings, connection):
        tenants.prepare(connection, read_key(settings), tenant)
        _, secret = keys.add(connection, tenant, name, expires_at=ends, by=who())
    terminal.echo(secret)


def list_command(as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False) -> None:
    """List the keys, without their secrets."""
    from iot_platform.accounts import keys

    with owner() as (_, connection):
        found = keys.list_keys(connection)
    if as_json:
        for item in found:
            terminal.echo_json(vars(item))
        return
    from rich.table import Table
    from rich.text import Text

    if not found:
        terminal.echo("there is no API key: `iot console key add` makes one")
        return
    table = Table("tenant", "key", "made", "ends", "last used")
    for item in found:
        times = [f"{time:%Y-%m-%d %H:%M}" if time else "–" for time in (item.created_at, item.expires_at, item.last_used_at)]
        table.add_row(Text(item.tenant), Text(item.name), *times)
    terminal.console().print(table)


def rotate_command(tenant: _Tenant, name: _Name) -> None:
    """Give a key another secret, shown this once; the old one ends at once."""
    from iot_platform.accounts import keys

    with owner() as (_, connection):
        terminal.echo(keys.rotate(connection, tenant, name))


def remove_command(tenant: _Tenant, name: _Name) -> None:
    """Remove a key; it ends at once."""
    from iot_platform.accounts import keys

    with owner() as (_, connection):
        keys.remove(connection, tenant, name=name)
    terminal.echo(f"key {name} of tenant {tenant} is gone")
