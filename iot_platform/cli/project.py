"""`iot project`: options of how a project's messages become measurements; beside them, corrections."""

from typing import TYPE_CHECKING, Annotated

import typer

from iot_platform.cli import corrections, terminal
from iot_platform.cli.database import migrated
from iot_platform.cli.errors import CliError
from iot_platform.cli.whose import named, whose

if TYPE_CHECKING:
    from rich.console import Console

    from iot_platform.telemetry.project_options import Choice

project_app = typer.Typer(name="project", help="Options of how messages become measurements, by project.", no_args_is_help=True)
Tenant = Annotated[str | None, typer.Option(help="Of this tenant only.")]
Project = Annotated[str | None, typer.Option(help="Of this project of the tenant only.")]
Name = Annotated[str, typer.Argument(help="conflicts, retained or numbers_in_strings.")]


def register(app: typer.Typer) -> None:
    """Add `project` to the app."""
    corrections.register(project_app)
    app.add_typer(project_app)


@project_app.command("options")
def options_command(
    *,
    tenant: Tenant = None,
    project: Project = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of tables.")] = False,
) -> None:
    """What can be chosen, what was, and with --tenant (and --project) what counts there."""
    from iot_platform.telemetry.project_options import OPTIONS, ProjectOptions, choices

    scope = whose(tenant, project, "option")
    with migrated("writer", "iot-project") as connection:
        chosen = choices(connection)
        counting = ProjectOptions.load(connection)
    in_force = {name: counting.value(name, *scope) for name in OPTIONS}
    if as_json:
        options = {option.name: {"default": option.default, "values": option.values} for option in OPTIONS.values()}
        document = {"in_force": in_force, "chosen": [vars(item) for item in chosen], "options": options}
        terminal.echo_json(document)
        return
    out = terminal.console(highlight=False)
    _show_options(in_force, named(*scope), out)
    _show_choices(chosen, out)


@project_app.command("set")
def set_command(
    name: Name,
    value: Annotated[str, typer.Argument(help="conflicts: first, last, keep. retained: changes, all. numbers_in_strings: off, on.")],
    *,
    tenant: Tenant = None,
    project: Project = None,
) -> None:
    """Choose for everybody, for a tenant, or for one of its projects. What is stored stays; drains take it with their next shift.

    [b]iot project set conflicts keep --tenant 1968193631353446400 --project 1968193691042586624[/b]

    The most specific choice counts. It may be made before the project's first message.
    """
    import getpass

    from iot_platform.telemetry.errors import OptionError
    from iot_platform.telemetry.project_options import is_known, set_option

    scope = whose(tenant, project, "option")
    try:
        with migrated("writer", "iot-project") as connection:
            by = f"iot project set ({getpass.getuser()})"
            changed = set_option(connection, name, value, tenant=scope[0], project=scope[1], changed_by=by)
            known = not scope[0] or is_known(connection, *scope)
    except OptionError as error:
        raise CliError(str(error)) from error
    terminal.echo(f"{name} {named(*scope)} is {value}" + ("; running drains take it with their next shift" if changed else " already"))
    if not known:
        terminal.echo(f"note: nothing was drained yet of {'project' if scope[1] else 'tenant'} {'/'.join(filter(None, scope))}")


@project_app.command("reset")
def reset_command(name: Name, *, tenant: Tenant = None, project: Project = None) -> None:
    """Take a choice back: the broader one, or the default, counts again."""
    from iot_platform.telemetry.errors import OptionError
    from iot_platform.telemetry.project_options import ProjectOptions, reset_option

    scope = whose(tenant, project, "option")
    try:
        with migrated("writer", "iot-project") as connection:
            removed = reset_option(connection, name, tenant=scope[0], project=scope[1])
            value = ProjectOptions.load(connection).value(name, *scope)
    except OptionError as error:
        raise CliError(str(error)) from error
    what = f"{name} {named(*scope)} is {value}"
    terminal.echo(f"{what} again; running drains take it with their next shift" if removed else f"there was no such choice: {what}")


def _show_options(in_force: dict[str, str], scope: str, out: "Console") -> None:
    from rich.table import Table

    from iot_platform.telemetry.project_options import OPTIONS

    table = Table(title=f"what counts {terminal.escape(scope)}", title_justify="left")
    for name in ("option", "value", "what it does"):
        table.add_column(name, overflow="fold")
    for option in OPTIONS.values():
        for value, meaning in option.values.items():
            counts = in_force[option.name] == value
            default = " [dim](default)[/dim]" if value == option.default else ""
            cells = [option.name, f"{value}{default}", terminal.escape(meaning)]
            table.add_row(*(f"[b]{cell}[/b]" if counts else f"[dim]{cell}[/dim]" for cell in cells))
    out.print(table)


def _show_choices(chosen: "list[Choice]", out: "Console") -> None:
    from rich.table import Table

    if not chosen:
        out.print("nobody chose anything else than the defaults")
        return
    table = Table(title="chosen", title_justify="left")
    for name in ("option", "whose", "value", "since"):
        table.add_column(name, overflow="fold")
    for item in chosen:
        whose = terminal.escape("/".join(filter(None, (item.tenant, item.project)))) or "[dim]everybody's[/dim]"
        table.add_row(item.name, whose, item.value, f"{item.changed_at:%Y-%m-%d %H:%M}Z")
    out.print(table)
