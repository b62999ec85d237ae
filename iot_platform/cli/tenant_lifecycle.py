"""`iot tenant list|show|export|delete`: what a tenant has, taking it out, and deleting it everywhere."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from iot_platform.cli import terminal
from iot_platform.cli.database import migrated
from iot_platform.cli.errors import CliError
from iot_platform.compression.formats import size

if TYPE_CHECKING:
    from iot_platform.settings import Settings
    from iot_platform.tenants.deletion import Deletion, DeletionProgress

WIDE = 150
"""Columns of a terminal from which on there is room for everything; NARROW: what is shown of the counts in less."""
NARROW = ("series", "messages", "measurements")
_Json = Annotated[bool, typer.Option("--json", help="JSON instead of a table.")]


def register(tenant_app: typer.Typer) -> None:
    """Add the commands to `iot tenant`."""
    tenant_app.command("list")(list_command)
    tenant_app.command("show")(show_command)
    tenant_app.command("export")(export_command)
    tenant_app.command("delete")(delete_command)


def list_command(*, as_json: _Json = False) -> None:
    """Every tenant: projects, devices, series, messages and measurements so far, first and last message, bytes (estimated)."""
    from iot_platform.tenants.listing import tenants

    with migrated("reader", "iot-tenant") as connection:
        found = tenants(connection)
    if as_json:
        terminal.echo_json([vars(item) for item in found])
        return
    columns = ("projects", "devices", "series", "messages", "quarantined", "measurements")
    rows = [(terminal.escape(item.tenant) + (" [red](being deleted)[/red]" if item.deleting else ""), item) for item in found]
    _print_table("tenant", columns, rows)


def show_command(tenant: Annotated[str, typer.Argument(help="Id of the tenant.")], *, as_json: _Json = False) -> None:
    """One tenant, by project."""
    from iot_platform.tenants.errors import TenantError
    from iot_platform.tenants.listing import projects, require

    try:
        with migrated("reader", "iot-tenant") as connection:
            whole, parts = require(connection, tenant), projects(connection, tenant)
    except TenantError as error:
        raise CliError(str(error)) from error
    if as_json:
        terminal.echo_json({**vars(whole), "by_project": [vars(item) for item in parts]})
        return
    columns = ("devices", "series", "messages", "quarantined", "measurements")
    _print_table(
        "project", columns, [(terminal.escape(item.project) or "[dim]none named[/dim]", item) for item in parts] + [("[b]all[/b]", whole)]
    )


def export_command(
    tenant: Annotated[str | None, typer.Argument(help="Id of the tenant.")] = None,
    folder: Annotated[Path | None, typer.Option("--to", help="New folder for the files; tenant-ID unless given.", file_okay=False)] = None,
    *,
    verify: Annotated[Path | None, typer.Option(help="Check an export instead: every file's SHA-256 and rows.", file_okay=False)] = None,
) -> None:
    """Write everything of a tenant as Parquet files with a manifest.json: rows, SHA-256 of each file, times, schema version.

    A day at a time, so that memory stays small. Interrupted, it goes on where it was when it is run again.

    [b]iot tenant export 1968193631353446400 --to export[/b]; [b]iot tenant export --verify export[/b]
    """
    if (tenant is None) == (verify is None):
        raise CliError("say which tenant to export, or --verify FOLDER")
    if verify is not None:
        _verify(verify)
    elif tenant is not None:
        _export(tenant, folder or Path(f"tenant-{tenant}"))


def _export(tenant: str, folder: Path) -> None:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from iot_platform.database.errors import DatabaseError
    from iot_platform.settings import get_settings
    from iot_platform.tenants.errors import TenantError
    from iot_platform.tenants.export import ExportProgress, export_tenant

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rows]:,} rows"))
    try:
        with Progress(*columns, disable=not sys.stderr.isatty()) as bars:
            tasks: dict[str, Any] = {}

            def show(progress: ExportProgress) -> None:
                task = tasks.setdefault(progress.table, None) or bars.add_task(progress.table, total=progress.total, rows=0)
                tasks[progress.table] = task
                bars.update(task, completed=progress.done, rows=progress.rows)

            manifest = export_tenant(get_settings(), tenant, folder, on_progress=show)
    except TenantError as error:
        raise CliError(str(error)) from error
    except DatabaseError as error:
        raise CliError(str(error), 2) from error
    counts = ", ".join(f"{count:,} {table}" for table, count in manifest["rows"].items())
    size = sum(file["bytes"] for file in manifest["files"])
    terminal.echo(
        f"{folder}: {counts}; {len(manifest['files'])} files, {size / 1e6:,.1f} MB. Check it with: iot tenant export --verify {folder}"
    )


def _verify(folder: Path) -> None:
    from iot_platform.tenants.errors import TenantError
    from iot_platform.tenants.verify import verify_export

    try:
        rows, wrong, unchecked = verify_export(folder)
    except TenantError as error:
        raise CliError(str(error)) from error
    for problem in wrong:
        terminal.echo(f"wrong: {problem}", err=True)
    if unchecked:
        terminal.echo(f"note: {unchecked}", err=True)
    terminal.echo(
        ", ".join(f"{count:,} {table}" for table, count in rows.items()) + ("" if wrong else ": all files are as the manifest says")
    )
    if wrong:
        raise typer.Exit(1)


def delete_command(
    tenant: Annotated[str, typer.Argument(help="Id of the tenant.")],
    *,
    yes_delete: Annotated[str | None, typer.Option("--yes-delete", help="The tenant's id once more, instead of typing it.")] = None,
) -> None:
    """Delete everything of a tenant, everywhere: messages, measurements, rollups, quarantine, names, books, policies, its login.

    Asks for the id. Killed or interrupted, it goes on when it is run again. What was deleted, when and by whom stays in tenant_deletion.
    Messages that arrive after the names are gone make a new tenant of that id: stop its devices first.
    """
    import getpass

    from iot_platform.database.errors import DatabaseError
    from iot_platform.settings import get_settings
    from iot_platform.tenants.deletion import delete_tenant, room_to_delete
    from iot_platform.tenants.errors import TenantError
    from iot_platform.tenants.listing import tenants

    settings = get_settings()
    with migrated("reader", "iot-tenant") as connection:
        found = tenants(connection, tenant)
        room = room_to_delete(connection, settings)
    if found:
        item = found[0]
        terminal.echo(
            f"tenant {tenant}: {item.projects} projects, {item.devices} devices, {item.series} series, {item.messages:,} messages and"
            f" {item.measurements:,} measurements so far" + (" (its deletion was begun before)" if item.deleting else "")
        )
        if room is not None:
            terminal.echo(str(room))
    typed = yes_delete if yes_delete is not None else typer.prompt("Type the tenant's id to delete all of it, for ever")
    if typed != tenant:
        raise CliError(f"{typed!r} is not {tenant!r}: nothing was deleted")
    try:
        with _status() as show:
            done = delete_tenant(settings, tenant, requested_by=f"iot tenant delete ({getpass.getuser()})", on_progress=show)
    except TenantError as error:
        raise CliError(str(error)) from error
    except DatabaseError as error:
        raise CliError(str(error), 2) from error
    terminal.echo(_sentence(done))
    terminal.echo(_forget_partitions(settings, tenant))


def _sentence(done: "Deletion") -> str:
    removed = ", ".join(f"{count:,} {table}" for table, count in sorted(done.removed.items()) if count)
    return (
        f"tenant {done.tenant} is deleted: {len(done.projects)} projects, {done.series:,} series, {done.sources:,} sources; rows: {removed}"
    )


def _forget_partitions(settings: "Settings", tenant: str) -> str:
    from iot_platform.orchestration.dynamic_partitions import forget_tenant
    from iot_platform.orchestration.environment import NoInstanceError, open_instance

    try:
        with open_instance(settings) as instance:
            return f"{forget_tenant(instance, tenant)} partitions of it are gone from Dagster"
    except NoInstanceError as error:
        return f"{error}: nothing to do there"
    except Exception as error:
        return f"note: its partitions are still in Dagster ({type(error).__name__}: {error}); delete the tenant's partitions in its UI"


@contextmanager
def _status() -> "Iterator[Any]":
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    with terminal.console(stderr=True).status("deleting …") as status:

        def show(progress: "DeletionProgress") -> None:
            status.update(f"deleting: {progress.stage}, {sum(progress.removed.values()):,} rows so far …")

        yield show


def _print_table(first: str, columns: tuple[str, ...], rows: list[tuple[str, Any]]) -> None:
    from rich.table import Table

    console = terminal.console(highlight=False)
    wide = console.width >= WIDE
    shown = [name for name in columns if wide or name in NARROW]
    table = Table(header_style="bold")
    table.add_column(first, overflow="fold")
    for name in (*shown, *(["first", "last"] if wide else []), "bytes"):
        table.add_column(name, justify="right", overflow="fold")
    for label, item in rows:
        times = [_day(item.first), _day(item.last)] if wide else []
        table.add_row(label, *(f"{getattr(item, name):,}" for name in shown), *times, f"about {size(item.bytes)}")
    console.print(table)
    if not wide:
        console.print(f"[dim]more columns: in a terminal of {WIDE}, or with --json[/dim]")


def _day(value: datetime | None) -> str:
    return f"{value:%Y-%m-%d %H:%M}" if value else "–"
