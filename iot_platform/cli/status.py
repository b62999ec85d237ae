"""`iot status`: how everything is, on one screen."""

import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from iot_platform.cli import findings_screen, terminal
from iot_platform.visible import visible

if TYPE_CHECKING:
    from rich.console import RenderableType

    from iot_platform.diagnostics.status import Status
    from iot_platform.settings import Settings

WATCH_SECONDS = 2.0
COLOURS = {"ok": "green", "starting": "yellow", "down": "bold red"}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(status)


def status(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of the screen.")] = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Repeat until Ctrl-C.")] = False,
) -> None:
    """Show what to fix first, then health, rates, lag, freshness, quarantine and the last runs; within about 10 seconds, whatever is down.

    Exit code: 0 nothing to fix, 1 in danger at the next fault, 3 something does not work and messages are late, 4 messages are missing or
    wrong. `iot doctor` looks at the settings, too.
    """
    from iot_platform.diagnostics.status import collect
    from iot_platform.settings import get_settings

    settings = get_settings()
    if watch and not as_json:
        _watch(settings)
        return
    while True:
        now = collect(settings)
        if as_json:
            terminal.echo_json(now.as_json())
        else:
            terminal.console().print(render(now, settings))
        if not watch:
            sys.stdout.flush()
            raise typer.Exit(now.exit_code)
        time.sleep(WATCH_SECONDS)


def _watch(settings: "Settings") -> None:
    from rich.live import Live
    from rich.text import Text

    from iot_platform.diagnostics.status import collect

    with Live(Text("asking …"), auto_refresh=False, screen=sys.stdout.isatty()) as live:
        try:
            while True:
                live.update(render(collect(settings), settings), refresh=True)
                time.sleep(WATCH_SECONDS)
        except KeyboardInterrupt:
            return


def render(status: "Status", settings: "Settings") -> "RenderableType":
    """The screen."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from iot_platform.diagnostics.finding import SIGNS, verdict, worst

    title = Text(f"IoT platform, {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC", "italic")
    found = status.problems
    title.append(f"   {verdict(found)}", f"not italic {SIGNS[worst(found)][1]}")
    first = Table(show_header=False, box=None, padding=(0, 1, 0, 0))
    for sign, what, text, remedy in findings_screen.rows(found):
        first.add_row(sign, what, text.append(f"  → {remedy}" if remedy else "", "dim"))
    health = Table(header_style="bold")
    for name in ("component", "state", "detail"):
        health.add_column(name, overflow="fold")
    for component in status.components:
        said = "" if component.state == "down" else component.detail  # what is down stands above
        health.add_row(component.name, Text(component.state, COLOURS.get(component.state, "")), Text(visible(said)))
    figures = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, value in _figures(status):
        figures.add_row(Text(name, "bold"), Text(visible(value)))
    return Group(title, first, health, figures, _runs(status, settings))


def _sink(sink: dict[str, Any]) -> str:
    behind = f"{sink['lag']:,} records behind ({sink['behind_seconds']:,.0f} s)"
    return f"{behind}   refused {sink['missing']:,}   series {sink['series']:,}   retries {sink['retries']:,}"


def _figures(status: "Status") -> list[tuple[str, str]]:
    def number(value: float | None, unit: str = "", digits: int = 0) -> str:
        return "–" if value is None else f"{value:,.{digits}f}{unit}"

    lag = "–"
    if status.lag is not None:
        each = ", ".join(f"{partition}: {records:,}" for partition, records in status.lag.items())
        lag = f"{sum(status.lag.values()):,} messages ({each})"
    quarantine = "–"
    if status.quarantine_24h is not None:
        each = ", ".join(f"{reason} {count:,}" for reason, count in status.quarantine_24h.items())
        quarantine = f"{sum(status.quarantine_24h.values()):,}" + (f" ({each})" if each else "")
    conflicts = "–"
    if status.conflicts_24h is not None:
        found = status.conflicts_by_project_24h or []
        parts = [f"{row['tenant']}/{row['project']} {row['conflicts']:,} of {row['measurements']:,}" for row in found]
        rest = status.conflicts_24h - sum(row["conflicts"] for row in found)
        each = ", ".join([*parts, *([f"others {rest:,}"] if rest else [])])
        conflicts = f"{status.conflicts_24h:,} measurements not stored" + (f" ({each})" if each else "")
    received = f"in flight {number(status.in_flight)}   spool {number(status.spool)}"
    stored = f"measurements {number(status.measurements_out_per_second, '/s')}   (last minute)"
    age = f"p50 {number(status.freshness_p50_seconds, ' s', 2)}   p95 {number(status.freshness_p95_seconds, ' s', 2)}"
    return [
        ("messages in", f"{number(status.messages_in_per_second, '/s')}   {received}"),
        ("messages out", f"{number(status.messages_out_per_second, '/s')}   {stored}"),
        ("lag by partition", lag),
        ("freshness", f"{age}   (last 5 minutes)"),
        ("quarantine, 24 h", quarantine),
        ("conflicts, 24 h", conflicts),
        *((f"influx {sink['sink']}", _sink(sink)) for sink in status.sinks or []),
    ]


def _runs(status: "Status", settings: "Settings") -> "RenderableType":
    from rich.table import Table
    from rich.text import Text

    if not status.runs:
        return Text("last Dagster runs: " + ("none yet" if status.runs is not None else "–"), "dim")
    table = Table(header_style="bold", caption=f"{settings.dagster_url}/runs/RUN", caption_justify="left")
    for name in ("last runs", "status", "started", "seconds", "run"):
        table.add_column(name, overflow="fold")
    for run in status.runs:
        colour = {"SUCCESS": "green", "FAILURE": "bold red", "STARTED": "cyan"}.get(run["status"], "")
        table.add_row(run["jobName"], Text(run["status"], colour), *_times(run), run["runId"])
    return table


def _times(run: dict[str, Any]) -> tuple[str, str]:
    if not run["startTime"]:
        return "–", "–"
    started = datetime.fromtimestamp(run["startTime"], UTC)
    return f"{started:%H:%M:%S}", f"{(run['endTime'] or time.time()) - run['startTime']:.0f}"
