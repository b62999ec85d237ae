"""`iot quality`: incidents of the quality rules, evaluating them by hand, and the rules' settings."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from iot_platform.cli import terminal
from iot_platform.cli.database import migrated
from iot_platform.cli.errors import CliError

if TYPE_CHECKING:
    from iot_platform.quality.rules import RuleSetting

T = TypeVar("T")

quality_app = typer.Typer(name="quality", help="Quality of the data: incidents, rules, and evaluating them now.")
rules_app = typer.Typer(
    name="rules", help="Settings of the rules: defaults, and others for a tenant, project or metric.", no_args_is_help=True
)
quality_app.add_typer(rules_app)

Tenant = Annotated[str, typer.Option(help="Only for this tenant.")]
Project = Annotated[str, typer.Option(help="Only for this project of the tenant.")]
Metric = Annotated[str, typer.Option(help="Only for this metric (quarantine_rate: this reason).")]


@quality_app.callback(invoke_without_command=True)
def show_command(
    context: typer.Context,
    *,
    tenant: Annotated[str | None, typer.Option(help="Incidents of this tenant only.")] = None,
    rule: Annotated[str | None, typer.Option(help="Incidents of this rule only.")] = None,
    only_open: Annotated[bool, typer.Option("--open", help="Open incidents only; exit code 1 if there are any.")] = False,
    days: Annotated[int, typer.Option(min=1, help="How many days of ended incidents.")] = 7,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of a table.")] = False,
) -> None:
    """Show the incidents of the quality rules: open ones first, then those that ended lately.

    [b]iot quality --tenant 1968193631353446400 --open[/b]
    """
    if context.invoked_subcommand is not None:
        return
    from iot_platform.quality.report import read_incidents, read_states

    _check_rules([rule] if rule is not None else [])
    with migrated("reader", "iot-quality", 1) as connection:
        found = read_incidents(connection, tenant=tenant, rule=rule, only_open=only_open, days=days)
        states = read_states(connection)
    if as_json:
        document = {"incidents": [vars(item) for item in found], "rules": [vars(item) for item in states.values()]}
        terminal.echo_json(document, str)
    else:
        from iot_platform.cli.quality_screen import show

        show(found, states, terminal.console(highlight=False))
    if only_open and found:
        raise typer.Exit(1)


@quality_app.command("run")
def run_command(
    rule: Annotated[list[str] | None, typer.Option("--rule", help="Only this rule; repeat the option for several.")] = None,
) -> None:
    """Judge what is new since the last evaluation. Dagster does it every few minutes; both at once wait for each other."""
    from iot_platform.database import DatabaseError
    from iot_platform.quality import RULES, QualityError, evaluate
    from iot_platform.settings import get_settings

    _check_rules(rule or [])
    try:
        result = evaluate(get_settings(), rules=tuple(rule or RULES))
    except (DatabaseError, QualityError) as error:
        raise CliError(str(error)) from error
    from iot_platform.cli.quality_screen import show_evaluation

    show_evaluation(result, terminal.console(highlight=False))
    if result.errors:
        raise CliError("; ".join(result.errors))


@quality_app.command("forget")
def forget_command(
    tenant: Annotated[str, typer.Option(help="The tenant.")],
    project: Annotated[str, typer.Option(help="Its project.")],
    device: Annotated[str | None, typer.Option(help="The device; without it the whole project.")] = None,
) -> None:
    """Forget a device that was taken away or renamed: what the rules learnt of it, and its open incidents. Its data stays; when it sends
    again it is learnt anew.

    [b]iot quality forget --tenant 1968193631353446400 --project 1968193691042586624 --device pump-7[/b]
    """
    from iot_platform.quality import QualityError
    from iot_platform.quality.forget import forget

    with migrated("writer", "iot-quality", 1) as connection:
        try:
            devices, incidents = forget(connection, tenant, project, device)
        except QualityError as error:
            raise CliError(str(error)) from error
    what = f"device {device}" if device is not None else f"{devices} devices and project {project}"
    terminal.echo(f"forgot {what}; ended {incidents} incident{'' if incidents == 1 else 's'}")


@rules_app.command("list")
def list_command() -> None:
    """Every rule with its defaults, and what tenants, projects and metrics have instead."""
    from iot_platform.cli.quality_screen import show_rules
    from iot_platform.quality.rules import read_rules

    with migrated("reader", "iot-quality", 1) as connection:
        show_rules(read_rules(connection), terminal.console(highlight=False))


@rules_app.command("set")
def set_command(
    rule: Annotated[str, typer.Argument(help="The rule.")],
    values: Annotated[
        list[str] | None, typer.Argument(help="name=value: enabled, severity, threshold, window_seconds, … or a parameter.")
    ] = None,
    *,
    tenant: Tenant = "",
    project: Project = "",
    metric: Metric = "",
    remove: Annotated[bool, typer.Option("--remove", help="Remove what is set for this tenant, project or metric.")] = False,
) -> None:
    """Change a rule, for everybody or for one tenant, project or metric. In force at the next evaluation.

    [b]iot quality rules set range --metric temperature min=-40 max=85[/b]
    [b]iot quality rules set freshness_device --tenant 1968193631353446400 enabled=false[/b]
    """
    from iot_platform.quality.rules import parse_setting

    if not values and not remove:
        raise CliError("nothing to set: write name=value, such as threshold=0.2 or enabled=false")
    scope = {"rule": rule, "tenant": tenant, "project": project, "metric": metric, "remove": remove}
    _write([_checked(lambda: parse_setting(scope | _assignments(values or []), rule))], strict=not remove)


@rules_app.command("import")
def import_command(file: Annotated[Path, typer.Argument(help="YAML: a list of rules.")]) -> None:
    """Set all rules of a YAML file at once, or none of them: a mistake is told with its line. What the file does not name stays. Of tenants
    and projects that have sent nothing yet it warns."""
    from iot_platform.quality.rules_file import read_file

    _write(_checked(lambda: read_file(file)))


@rules_app.command("export")
def export_command() -> None:
    """Print the settings in force as YAML that `import` takes."""
    from iot_platform.quality.rules import read_rules
    from iot_platform.quality.rules_file import write_text

    with migrated("reader", "iot-quality", 1) as connection:
        terminal.echo(write_text(setting for setting, _ in read_rules(connection)), nl=False)


def _assignments(values: list[str]) -> dict[str, Any]:
    """name=value as YAML reads the value; names that are no column are parameters."""
    import yaml

    from iot_platform.quality.rules import RuleSetting

    result: dict[str, Any] = {"parameters": {}}
    for text in values:
        name, sign, value = text.partition("=")
        if not sign or not value:
            raise CliError(f"{text!r} is no setting: write name=value")
        if name in {**result, **result["parameters"]}:
            raise CliError(f"{text!r}: {name} is set already")
        try:
            plain = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise CliError(f"{text!r}: {value!r} is no value") from error
        column = name in RuleSetting.model_fields and name not in {"rule", "tenant", "project", "metric", "parameters", "remove"}
        (result if column else result["parameters"])[name] = plain
    return result


def _checked(read: Callable[[], T]) -> T:
    from iot_platform.quality import RulesError

    try:
        return read()
    except RulesError as error:
        raise CliError(str(error)) from error


def _check_rules(rules: list[str]) -> None:
    from iot_platform.quality import RULES

    if unknown := sorted(set(rules) - set(RULES)):
        raise CliError(f"there is no rule {unknown[0]!r}; rules: {', '.join(RULES)}")


def _write(settings: "list[RuleSetting]", *, strict: bool = False) -> None:
    """Strict: not for a tenant or project that nobody knows; else that is only told."""
    from iot_platform.quality import RulesError
    from iot_platform.quality.rules import unknown_scopes, write_rules

    with migrated("writer", "iot-quality", 1) as connection:
        unknown = unknown_scopes(connection, [item for item in settings if not item.remove])
        if unknown and strict:
            raise CliError(f"{unknown[0]} (rules for those that come later: `iot quality rules import`)")
        for warning in unknown:
            terminal.echo(f"warning: {warning}", err=True)
        try:
            changed = write_rules(connection, settings)
        except RulesError as error:
            raise CliError(str(error)) from error
    if len(settings) == 1 and changed == 0:
        raise CliError(f"{settings[0].rule} has no setting of its own for {settings[0].scope}")
    for item in settings[:20]:
        terminal.echo(f"{'removed' if item.remove else 'set'} {item.rule} for {item.scope}")
    if len(settings) > 20:
        terminal.echo(f"… and {len(settings) - 20} more")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(quality_app)
