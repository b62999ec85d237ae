"""`iot migrate`: brings the database schema up to this version."""

from typing import Annotated

import typer

from iot_platform.cli import terminal
from iot_platform.cli.errors import CliError


def migrate_command(
    check: Annotated[bool, typer.Option("--check", help="Change nothing; exit 1 if migrations are missing.")] = False,
    status: Annotated[bool, typer.Option("--status", help="Change nothing; list what would be applied.")] = False,
) -> None:
    """Apply the migrations of sql/ to the database (IOT_DATABASE_ADMIN_URL), safely and repeatably."""
    from iot_platform.database import DatabaseError, migrate, pending
    from iot_platform.settings import get_settings

    console = terminal.console()
    settings = get_settings()
    try:
        if not (check or status):
            applied = migrate(settings, lambda text: console.print(f"[dim]migrate[/dim] {text}", highlight=False))
            console.print(f"{len(applied)} file(s) applied, the database is up to date" if applied else "the database is up to date")
            return
        todo = pending(settings)
    except DatabaseError as error:
        raise CliError(str(error)) from error
    for name in todo:
        console.print(f"pending {name}", highlight=False)
    if not todo:
        console.print("the database is up to date")
    elif check:
        raise CliError(f"{len(todo)} migration(s) are missing: run `iot migrate`")


def register(app: typer.Typer) -> None:
    """Add `migrate` to the app."""
    app.command("migrate")(migrate_command)
