"""`iot retention`: how long rows are kept, and removing those that are older."""

import sys
from contextlib import nullcontext
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from iot_platform.cli import terminal
from iot_platform.cli.database import migrated
from iot_platform.cli.errors import CliError
from iot_platform.cli.whose import named, whose

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import Console

    from iot_platform.retention import Policy, Removal

retention_app = typer.Typer(name="retention", help="How long rows are kept; removing those that are older.", no_args_is_help=True)
WIDE = 100
"""Columns of a terminal from which on there is room for everything."""
Tenant = Annotated[str | None, typer.Option(help="Only this tenant's rows.")]
Project = Annotated[str | None, typer.Option(help="Only this project of the tenant.")]


def register(app: typer.Typer) -> None:
    """Add `retention` to the app."""
    app.add_typer(retention_app)


@retention_app.command("show")
def show_command(*, as_json: Annotated[bool, typer.Option("--json", help="One JSON array instead of a table.")] = False) -> None:
    """Every policy: how long rows are kept, what may go now, and what retention took so far."""
    from iot_platform.retention import policies

    with migrated("writer", "iot-retention") as connection:
        found = policies(connection)
    if as_json:
        terminal.echo_json([vars(item) for item in found])
    else:
        _show_policies(found, terminal.console(highlight=False))


@retention_app.command("set")
def set_command(
    table: Annotated[str, typer.Argument(help="message, measurement, measurement_1h, measurement_1d, quarantine, ledger …")],
    keep: Annotated[str | None, typer.Argument(help="How long: 12h, 30d, 6w, 2y or forever.")] = None,
    *,
    tenant: Tenant = None,
    project: Project = None,
    default: Annotated[bool, typer.Option("--default", help="Remove the tenant's or project's policy instead.")] = False,
) -> None:
    """Change how long rows of a table are kept: everybody's, or (shorter) a tenant's or a project's. The next run goes by it.

    [b]iot retention set measurement 30d --tenant 1968193631353446400[/b]

    Rollups are never kept shorter than what they are made of, nor the ledger shorter than what it accounts for.
    """
    import getpass

    from iot_platform.retention import RetentionError, behind_mark, remove_policy, set_policy

    tenant, project = whose(tenant, project, "policy")
    if default == (keep is not None):
        raise CliError("say either how long (iot retention set measurement 30d) or --default")
    try:
        with migrated("writer", "iot-retention") as connection:
            if default:
                found = remove_policy(connection, table, tenant=tenant, project=project)
            else:
                set_policy(
                    connection, table, keep or "", tenant=tenant, project=project, changed_by=f"iot retention set ({getpass.getuser()})"
                )
            gone = behind_mark(connection, table, tenant, project)
    except RetentionError as error:
        raise CliError(str(error)) from error
    if default:
        terminal.echo("the broader policy counts again" if found else "there was no such policy: nothing changed")
    else:
        terminal.echo(f"{table} {named(tenant, project)} is kept for {keep}; `iot retention run --dry-run` shows what would go")
    if gone is not None:
        rest = ", but are never in measurement_1h and measurement_1d" if table == "measurement" else ""
        terminal.echo(f"note: retention took rows before {_utc_text(gone)} already; those that still come late are kept now{rest}")


@retention_app.command("run")
def run_command(
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would go: chunks, rows, bytes, the newest time.")] = False,
    seconds: Annotated[float, typer.Option(min=1, help="Stop after about this long; the next run goes on.")] = 3600.0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of tables.")] = False,
) -> None:
    """Remove what is older than the policies keep. Whole chunks are dropped, the rest is deleted in batches of 10,000 rows.

    Nothing goes that is not completely rolled up, or that the audit cannot account for; what is refused is shown with the reason, and
    holds up everything newer of its table. May be killed at any point and repeated.

    Exit code 0: all is done. 1: something was refused. 2: a server does not answer.
    """
    from iot_platform.database.errors import DatabaseError
    from iot_platform.retention import plan, run_retention
    from iot_platform.settings import get_settings

    out, watching = terminal.console(highlight=False), sys.stderr.isatty()
    postponed: list[Removal] = []
    status = terminal.console(stderr=True).status("looking for what is beyond its policy …") if watching else nullcontext()
    document: dict[str, Any]
    try:
        with status as shown:
            if dry_run:
                with migrated("writer", "iot-retention") as connection:
                    found = plan(connection)
                gone, refused = [item for item in found if not item.refused], [item for item in found if item.refused]
                document = {"would_remove": gone, "refused": refused}
                line = f"{sum(item.rows for item in gone)} rows would go; nothing was changed"
            else:
                report = run_retention(
                    get_settings(),
                    seconds=seconds,
                    on_progress=lambda item: (
                        shown.update(f"{item.table}: {item.rows} rows before {item.range_to:%Y-%m-%d %H:%M}Z …") if shown else None
                    ),
                )
                gone, refused, postponed = report.removed, report.refused, report.postponed
                document = {
                    "removed": gone,
                    "refused": refused,
                    "postponed": postponed,
                    "seconds": round(report.seconds, 3),
                    "unfinished": report.unfinished,
                }
                line = f"{report.rows} rows went, {report.chunks} chunks, {_size(report.bytes)}, in {report.seconds:.1f} s"
                line += "; the time was over before all was done: run it again" if report.unfinished else ""
    except DatabaseError as error:
        raise CliError(str(error), 2) from error
    if as_json:
        terminal.echo_json({name: _plain(value) for name, value in document.items()})
    else:
        _show_removals(gone, "would go" if dry_run else "went", out)
        out.print(line)
        _show_reasons("[red]refused[/red]", refused, out)
        _show_reasons("postponed", postponed, out)
    if refused:
        raise typer.Exit(1)


def _show_policies(found: "Iterable[Policy]", out: "Console") -> None:
    from rich.table import Table

    wide = out.width >= WIDE
    table = Table()
    for name in ("table", "whose", "kept for", "may go before", "gone before", *(["rows gone"] if wide else [])):
        table.add_column(name, overflow="fold")
    for item in found:
        keep = f"{item.keep} [dim](a broader policy is shorter)[/dim]" if item.shadowed else item.keep
        cells = [
            item.table,
            _whose(item) or "[dim]everybody's[/dim]",
            keep,
            *(f"{value:%Y-%m-%d}" if value else "–" for value in (item.cutoff, item.removed_before)),
        ]
        table.add_row(*cells, *([f"{item.removed_rows:,}"] if wide else []))
    out.print(table)


def _show_removals(found: "list[Removal]", word: str, out: "Console") -> None:
    from rich.table import Table

    if not found:
        return
    table = Table(title=word, title_justify="left")
    for name in ("table", "whose", "what"):
        table.add_column(name, overflow="fold")
    for name in ("rows", "bytes", "newest"):
        table.add_column(name, justify="right", no_wrap=True)
    for item in found:
        what = item.chunk.removeprefix("_timescaledb_internal.") if item.chunk else f"rows before {_utc_text(item.range_to)}"
        table.add_row(item.table, _whose(item), what, f"{item.rows:,}", _size(item.bytes), _utc_text(item.newest))
    out.print(table)


def _show_reasons(word: str, found: "list[Removal]", out: "Console") -> None:
    for item in found:
        place = f"{item.table}{' of ' + _whose(item) if item.tenant else ''} {_utc_text(item.range_from)} to {_utc_text(item.range_to)}"
        for reason in item.refused:
            out.print(f"{word} {place}: {terminal.escape(reason)}", soft_wrap=True)


def _whose(item: "Policy | Removal") -> str:
    return terminal.escape("/".join(part for part in (item.tenant, item.project) if part))


def _utc_text(value: datetime | None) -> str:
    return f"{value:%Y-%m-%d %H:%M}Z" if value else "–"


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _plain(value: Any) -> Any:
    return [vars(item) for item in value] if isinstance(value, list) else value
