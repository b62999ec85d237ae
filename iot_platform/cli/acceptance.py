"""`iot acceptance`: whether an installation is what the plan says, week by week."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from iot_platform.cli import terminal
from iot_platform.cli.errors import CliError

if TYPE_CHECKING:
    from iot_platform.acceptance.check import Check, Verdict
    from iot_platform.acceptance.record import Record
    from iot_platform.settings import Settings

NOT_CHECKED = 3
SIGNS = {"passed": "[green]✓[/green]", "failed": "[red]✗[/red]", "not checked": "[yellow]?[/yellow]"}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(acceptance)


def acceptance(
    weeks: Annotated[list[str] | None, typer.Argument(help="week1 … week8, or [b]all[/b]; none lists them.", metavar="[WEEK…]")] = None,
    *,
    again: Annotated[bool, typer.Option("--again", help="Ask what has passed already, too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of lines.")] = False,
) -> None:
    """Check an installation on its real servers: registry, cluster, end-to-end row, upkeep, dashboards, delivery, drills.

    What passed is remembered, so that it goes on where it was. One row is written, of a tenant called acceptance (week 4); nothing else
    changes anything. Addresses are the settings IOT_HARBOR_URL, IOT_PROMETHEUS_URL, IOT_GRAFANA_URL and KUBECONFIG, beside the usual ones.

    Exit code 0: all passed. 1: something failed. 3: nothing failed, and something could not be checked from here.
    """
    from iot_platform.acceptance.plan import WEEKS, find
    from iot_platform.acceptance.record import Record
    from iot_platform.settings import get_settings

    settings = get_settings()
    record = Record(settings)
    if not weeks and not as_json:
        for week in WEEKS:
            passed = sum(record.passed_at(check.name) is not None for check in week.checks)
            terminal.echo(f"{week.name}  {week.milestone}  {passed} of {len(week.checks)} passed  {week.title}")
        return
    try:
        chosen = find(weeks or ["all"])
    except LookupError as error:
        raise CliError(str(error.args[0])) from error
    console = terminal.console(soft_wrap=True, highlight=False)
    document: list[dict[str, Any]] = []
    for week in chosen:
        if not as_json:
            console.print(f"[b]{week.name}, {week.milestone}: {week.title}[/b]")
        for check in week.checks:
            verdict, at = _verdict(check, settings, record, again=again)
            document.append({"week": week.name, "milestone": week.milestone, "check": check.name, **vars(verdict), "at": at.isoformat()})
            if not as_json:
                remedy = f"[dim]  → {terminal.escape(verdict.remedy)}[/dim]" if verdict.remedy else ""
                before = f" [dim]({at:%Y-%m-%d %H:%M} UTC)[/dim]" if (datetime.now(UTC) - at).total_seconds() > 60 else ""
                state = "" if verdict.state != "not checked" else "not checked: "
                console.print(f"{SIGNS[verdict.state]} {check.title}: {state}{terminal.escape(verdict.text)}{before}{remedy}")
    states = {item["state"] for item in document}
    if as_json:
        terminal.echo_json({"passed": states == {"passed"}, "checks": document})
    if "failed" in states:
        raise typer.Exit(1)
    if "not checked" in states:
        raise typer.Exit(NOT_CHECKED)


def _verdict(check: "Check", settings: "Settings", record: "Record", *, again: bool) -> "tuple[Verdict, datetime]":
    before = record.passed_at(check.name)
    kept = record.verdict(check.name)
    if before is not None and kept is not None and not again:
        return kept, before
    verdict = check.run(settings)
    try:
        record.note(check.name, verdict)
    except OSError as error:
        terminal.echo(f"note: {record.path}: {error.strerror}; what passed is asked again next time (IOT_LOCAL_DIR)", err=True)
    return verdict, datetime.now(UTC)
