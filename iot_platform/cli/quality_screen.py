"""What `iot quality` prints: incidents, the outcome of an evaluation, settings."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table

from iot_platform.cli import terminal
from iot_platform.quality.evaluate import Evaluation
from iot_platform.quality.report import Incident, RuleState
from iot_platform.quality.rules import RuleSetting

if TYPE_CHECKING:
    from rich.console import Console

COLUMNS = ("enabled", "severity", "threshold", "window_seconds", "clear_seconds", "hold_seconds")


def show(incidents: Sequence[Incident], states: Mapping[str, RuleState], console: "Console") -> None:
    """A table of incidents, and how fresh the verdict is."""
    if incidents:
        table = Table("opened, until", "rule", "tenant, project, device, metric", "what", box=SIMPLE_HEAD)
        for item in incidents:
            colour = "dim" if item.closed_at else "red" if item.severity == "ERROR" else "yellow"
            names = [name for name in (item.tenant, item.project, item.device, item.metric) if name]
            what = item.message + (f"; {item.flaps} times good in between" if item.flaps else "")
            record = f" ({item.kafka_partition}:{item.kafka_offset})" if item.kafka_offset is not None else ""
            until = _time(item.closed_at) if item.closed_at else "open"
            table.add_row(
                f"{_time(item.opened_at)}\n{until}",
                item.rule,
                terminal.escape("\n".join(names) or "platform"),
                terminal.escape(what + record),
                style=colour,
            )
        console.print(table)
    still = sum(item.open for item in states.values())
    looked = [item.evaluated_at for item in states.values() if item.evaluated_at]
    when = f"last evaluated {_time(min(looked))} UTC" if looked else "never evaluated: `iot quality run`, or start Dagster"
    console.print(
        f"{still} open incident{'' if still == 1 else 's'} of {len(states)} rules; {when}", style="bold red" if still else "bold green"
    )
    for state in states.values():
        if state.error:
            console.print(f"{state.rule} fails and will be repeated: {state.error}", style="red", markup=False, soft_wrap=True)
    if any(item.kafka_offset is not None for item in incidents):
        console.print("(partition:offset) names a Kafka record: `iot trace --partition P --offset O`", style="dim", markup=False)


def show_evaluation(result: Evaluation, console: "Console") -> None:
    """One line per rule."""
    table = Table("rule", "open", "opened", "continued", "closed", "seconds", box=SIMPLE_HEAD)
    for item in result.outcomes.values():
        style = "red" if item.error else "yellow" if item.failing else None
        table.add_row(item.rule, *map(str, (item.failing, item.opened, item.continued, item.closed)), f"{item.seconds:.2f}", style=style)
    console.print(table)
    if not result.live:
        console.print(f"silence is not judged: {result.reason}", style="yellow", markup=False)
    if not result.finished:
        console.print("not at the end of what is new: run it again", style="yellow")
    console.print(f"{result.batches} new batches up to {_time(result.horizon)} UTC, {result.seconds:.1f} s", markup=False)


def show_rules(rules: Sequence[tuple[RuleSetting, str]], console: "Console") -> None:
    """Defaults with what they mean, overrides below their rule."""
    table = Table("rule", "for", *COLUMNS, "parameters", box=SIMPLE_HEAD)
    for setting, _ in rules:
        values = (
            "" if (value := getattr(setting, name)) is None else f"{value:g}" if isinstance(value, float) else str(value)
            for name in COLUMNS
        )
        parameters = json.dumps(setting.parameters, ensure_ascii=False) if setting.parameters else ""
        style = "dim" if setting.is_override else "bold" if setting.enabled else "strike"
        table.add_row(
            "" if setting.is_override else setting.rule,
            terminal.escape(setting.scope) if setting.is_override else "",
            *values,
            terminal.escape(parameters),
            style=style,
        )
    console.print(table)
    for setting, description in rules:
        if description:
            console.print(f"[bold]{setting.rule}[/bold]  {terminal.escape(description)}", soft_wrap=True)


def _time(time: datetime) -> str:
    return f"{time:%m-%d %H:%M:%S}"
