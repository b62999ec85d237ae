"""`iot project correct|corrections|end-correction`: other rules for a tenant's messages that the platform's own refuse."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from iot_platform.cli import terminal
from iot_platform.cli.database import migrated
from iot_platform.cli.errors import CliError
from iot_platform.cli.times import parse_time

if TYPE_CHECKING:
    from iot_platform.telemetry.corrections import Stored


def register(project_app: typer.Typer) -> None:
    """Add the commands to `iot project`."""
    project_app.command("correct")(correct_command)
    project_app.command("corrections")(corrections_command)
    project_app.command("end-correction")(end_command)


def correct_command(
    rule: Annotated[Path, typer.Argument(help="JSON file: an object of topic_pattern, topic_codecs, …_pointers, default_timezone.")],
    *,
    tenant: Annotated[str, typer.Option(help="Whose messages it makes.")],
    since: Annotated[str, typer.Option("--from", help="Received at or after: ISO 8601 (UTC), or 2h, 3d ago.")],
    until: Annotated[str | None, typer.Option("--to", help="Received before; also what comes from now on unless given.")] = None,
    project: Annotated[str, typer.Option(help="Only messages whose topic names this project.")] = "",
    reason: Annotated[str, typer.Option(help="Only messages that are refused for this reason.")] = "",
    topic: Annotated[str, typer.Option(help="Also messages whose topic names no tenant, if it fits this MQTT topic filter.")] = "",
) -> None:
    """Add a corrected rule for what the platform's rules refuse. [b]iot replay --quarantined[/b] then stores what waits in quarantine.

    [b]iot project correct rule.json --tenant 1968193631353446400 --from 2d[/b]
    """
    import getpass

    from iot_platform.settings import get_settings
    from iot_platform.telemetry.corrections import Wanted, add
    from iot_platform.telemetry.decode import Reason
    from iot_platform.telemetry.errors import CorrectionError

    if reason and reason not in set(Reason):
        raise CliError(f"no message is quarantined for {reason!r}; the reasons are: {', '.join(Reason)}")
    start, end = parse_time(since), parse_time(until) if until else None
    if end is not None and end <= start:
        raise CliError("--from must be before --to")
    wanted = Wanted(tenant, _read(rule), start, end, project=project, reason=reason, topic_filter=topic)
    try:
        with migrated("writer", "iot-project") as connection:
            number = add(connection, get_settings(), wanted, who=f"iot project correct ({getpass.getuser()})")
            connection.commit()
    except CorrectionError as error:
        raise CliError(f"{error.field}: {error}" if error.field else str(error)) from error
    later = "; running drains take it with their next shift" if end is None else ""
    terminal.echo(f"correction {number} of tenant {tenant}{later}; store what waits: iot replay --quarantined --tenant {tenant}")


def _read(path: Path) -> dict[str, Any]:
    try:
        said = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CliError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(said, dict) or not said:
        raise CliError(f'{path} must hold a JSON object such as {{"default_timezone": "Asia/Shanghai"}}')
    return said


def corrections_command(
    *,
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of a table.")] = False,
) -> None:
    """Corrected rules, oldest first: of several that can read a message the oldest counts."""
    from iot_platform.telemetry.corrections import corrections

    with migrated("writer", "iot-project") as connection:
        found = corrections(connection, tenant)
    if as_json:
        terminal.echo_json({"corrections": [vars(item) for item in found]})
    elif not found:
        terminal.echo("there are no corrections")
    else:
        _show(found)


def _show(found: "list[Stored]") -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(title="corrections", title_justify="left")
    for name in ("number", "whose", "messages received", "refused for", "rule", "by"):
        table.add_column(name, overflow="fold")
    for item in found:
        end = f"{item.received_to:%Y-%m-%d %H:%M}Z" if item.received_to else "now on, too"
        table.add_row(
            str(item.correction_id),
            Text("/".join(filter(None, (item.tenant, item.project))) + (f" and {item.topic_filter}" if item.topic_filter else "")),
            f"{item.received_from:%Y-%m-%d %H:%M}Z to {end}",
            item.reason or "anything",
            Text(json.dumps(item.said, ensure_ascii=False)),
            Text(item.created_by + (f"; ended by {item.ended_by}" if item.ended_by else "")),
        )
    terminal.console(highlight=False).print(table)


def end_command(correction: Annotated[int, typer.Argument(help="Its number, as `iot project corrections` lists it.", min=1)]) -> None:
    """Leave alone what comes from now on. What the correction stored stays, and is read by it again."""
    import getpass

    from iot_platform.settings import get_settings
    from iot_platform.telemetry.corrections import end
    from iot_platform.telemetry.errors import CorrectionError

    try:
        with migrated("writer", "iot-project") as connection:
            at = end(connection, get_settings(), correction, who=f"iot project end-correction ({getpass.getuser()})")
            connection.commit()
    except CorrectionError as error:
        raise CliError(str(error)) from error
    terminal.echo(f"correction {correction} ends with messages received at {at:%Y-%m-%d %H:%M:%S}Z, when every running drain knows")
