"""`iot series`: what people say of series, out of and into CSV files."""

import io
import sys
from pathlib import Path
from typing import Annotated

import typer

from iot_platform.cli import terminal
from iot_platform.cli.database import migrated
from iot_platform.cli.errors import CliError

series_app = typer.Typer(name="series", help="Display names, units, valid ranges and descriptions of series.", no_args_is_help=True)
Tenant = Annotated[str, typer.Option(help="Id of the tenant.")]


def register(app: typer.Typer) -> None:
    """Add `series` to the app."""
    app.add_typer(series_app)


@series_app.command("export")
def export_command(
    *,
    tenant: Tenant,
    project: Annotated[str | None, typer.Option(help="Of this project only.")] = None,
    to: Annotated[Path | None, typer.Option(help="File to write; standard output unless given.", dir_okay=False)] = None,
) -> None:
    """Every series of a tenant with what is said of it, as CSV: project, device, metric, display_name, unit, valid_min, valid_max,
    description.

    [b]iot series export --tenant 1968193631353446400 --to series.csv[/b]
    """
    from iot_platform.tenants.series_info import read, write_csv

    with migrated("reader", "iot-series") as connection:
        lines = write_csv(read(connection, tenant, project))
        if to is None:
            sys.stdout.writelines(lines)
            return
        part = to.with_name(f"{to.name}.part")
        try:
            with part.open("w", encoding="utf-8", newline="") as file:
                file.writelines(lines)
            part.replace(to)
        except OSError as error:
            raise CliError(f"{to}: cannot be written: {error.strerror}") from error
    terminal.echo(f"written to {to}")


@series_app.command("import")
def import_command(
    file: Annotated[Path, typer.Argument(help="CSV as `iot series export` writes it; - for standard input.", dir_okay=False)],
    *,
    tenant: Tenant,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell how much would change, and change nothing.")] = False,
) -> None:
    """Set what is said of the series that the file names, all of it in one transaction: a field that is empty becomes empty. Series that it
    does not name stay. Each change is kept with its time and who made it.

    [b]iot series import series.csv --tenant 1968193631353446400 --dry-run[/b]
    """
    import getpass

    import psycopg2

    from iot_platform.tenants.errors import TenantError
    from iot_platform.tenants.series_info import read_csv, store

    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise CliError(f"{file}: cannot be read: {error}") from error
    try:
        infos = read_csv(io.StringIO(text, newline=""), str(file))
        with migrated("writer", "iot-series") as connection:
            changed = store(connection, tenant, infos, f"iot series import ({getpass.getuser()})")
            if dry_run:
                connection.rollback()
            else:
                connection.commit()
    except TenantError as error:
        raise CliError(str(error)) from error
    except psycopg2.Error as error:
        raise CliError(" ".join(str(error).split()), 2) from error
    terminal.echo(f"{changed} of {len(infos)} series {'would change' if dry_run else 'changed'}")
