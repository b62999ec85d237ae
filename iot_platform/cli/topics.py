"""`iot topics`: the platform's Kafka topics as they are, whether they keep the promise, and putting them right."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from iot_platform.cli import terminal
from iot_platform.cli.errors import CliError

if TYPE_CHECKING:
    from iot_platform.kafka.topic_rules import Finding
    from iot_platform.kafka.topic_state import TopicState
    from iot_platform.settings import Settings

topics_app = typer.Typer(
    name="topics", help="The Kafka topics: how they are configured, and whether that keeps every message.", no_args_is_help=True
)
COLOURS = {"refused": "red", "accepted": "yellow", "warning": "yellow"}


def register(app: typer.Typer) -> None:
    """Add `topics` to the app."""
    app.add_typer(topics_app)


@topics_app.command("show")
def show_command(*, as_json: Annotated[bool, typer.Option("--json", help="One JSON array instead of tables.")] = False) -> None:
    """Every setting that matters, as it is in force, where it comes from, and what that means."""
    from rich.table import Table

    states, found = _look(_settings())
    rows = {state.name: _rows(state, found) for state in states}
    if as_json:
        documents = [_document(state, rows[state.name]) for state in states]
        terminal.echo_json(documents)
        return
    for state in states:
        counts = {"partition": state.partitions, "replica": state.replicas, "broker": state.brokers}
        size = ", ".join(f"{count} {what}{'s' if count != 1 else ''}" for what, count in counts.items())
        table = Table(title=f"{state.name}: {size}", title_justify="left")
        for name in ("setting", "value", "from", "verdict"):
            table.add_column(name, overflow="fold")
        for row in rows[state.name]:
            colour = COLOURS.get(row["verdict"], "green")
            verdict = f"[{colour}]{row['verdict']}[/{colour}]" + (f": {row['reason']}" if row["reason"] else "")
            table.add_row(row["setting"], row["value"], row["source"], verdict)
        terminal.console(highlight=False).print(table)


@topics_app.command("check")
def check_command(*, as_json: Annotated[bool, typer.Option("--json", help="One JSON array of findings.")] = False) -> None:
    """Whether both topics keep every acknowledged message. Changes nothing.

    Exit code 0: yes (warnings may be printed). 1: no; each reason comes with the command that mends it. 2: Kafka does not answer.
    """
    from iot_platform.kafka.topics import remedy

    settings = _settings()
    states, found = _look(settings)
    if as_json:
        terminal.echo_json([_plain(item) for item in found])
    else:
        console = terminal.console(highlight=False, soft_wrap=True)
        for item in found:
            text = f". {remedy(settings, item)}" if item.state == "refused" else ""
            state = f"[{COLOURS[item.state]}]{item.state}[/{COLOURS[item.state]}]"
            console.print(f"{state} {terminal.escape(item.line)}[dim]{terminal.escape(text)}[/dim]")
        if not any(item.state == "refused" for item in found):
            console.print(f"{' and '.join(state.name for state in states)} keep what is acknowledged{' (but see above)' if found else ''}")
    if any(item.state == "refused" for item in found):
        raise typer.Exit(1)


@topics_app.command("create")
def create_command() -> None:
    """Create the message topic and the dead-letter topic where they don't exist; existing ones stay as they are."""
    from iot_platform.kafka.topics import TopicError, create_topics

    try:
        made = create_topics(_settings())
    except TopicError as error:
        raise CliError(str(error)) from error
    terminal.echo(f"created {', '.join(made)}; `iot topics check` checks it" if made else "both topics exist: nothing was changed")


@topics_app.command("apply")
def apply_command(*, yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False) -> None:
    """Put right what `iot topics check` refuses: shows the changes, asks, and alters these settings of the topics and nothing else."""
    from iot_platform.kafka.topics import TopicError, apply_changes, planned_changes

    settings = _settings()
    try:
        changes = planned_changes(settings)
        if not changes:
            terminal.echo("nothing to change: `iot topics check` refuses nothing that a setting could mend")
            return
        for change in changes:
            new = "taken away, so that the broker's default counts" if change.new is None else change.new
            terminal.echo(f"topic {change.topic}: {change.setting}: {change.old} → {new}")
        if not yes:
            typer.confirm(f"Change this at {settings.kafka_bootstrap_servers}?", abort=True)
        apply_changes(settings, changes)
    except TopicError as error:
        raise CliError(str(error)) from error
    terminal.echo(f"{len(changes)} setting(s) changed")


def _settings() -> "Settings":
    from iot_platform.settings import get_settings

    return get_settings()


def _look(settings: "Settings") -> "tuple[list[TopicState], list[Finding]]":
    from iot_platform.kafka.topics import TopicError, check_topics

    try:
        return check_topics(settings)
    except TopicError as error:
        raise CliError(str(error), 2) from error


def _rows(state: "TopicState", found: "list[Finding]") -> list[dict[str, str]]:
    """A line for each setting that is looked at, and for each finding about something else."""
    from iot_platform.kafka.topic_rules import LOOKED_AT

    findings = {item.setting: item for item in found if item.topic == state.name}
    rows = []
    for name in [*LOOKED_AT, *(name for name in findings if name not in LOOKED_AT)]:
        item, value = findings.get(name), state.config.get(name)
        rows.append(
            {
                "setting": name,
                "value": value.value if value else item.value if item else "-",
                "source": value.source if value else "",
                "verdict": item.state if item else "ok" if value else "not told",
                "reason": item.reason if item else "",
            }
        )
    return rows


def _document(state: "TopicState", rows: list[dict[str, str]]) -> dict[str, Any]:
    return {
        "topic": state.name,
        "partitions": state.partitions,
        "replicas": state.replicas,
        "brokers": state.brokers,
        "leaderless": state.leaderless,
        "under_replicated": state.under_replicated,
        "settings": rows,
    }


def _plain(item: "Finding") -> dict[str, Any]:
    return {**vars(item), "mend": dict([item.mend]) if item.mend else {}}
