"""`iot trace`: the way of one message, from its Kafka record to its rows, batch and Dagster run."""

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from iot_platform.cli import terminal
from iot_platform.cli.errors import CliError
from iot_platform.visible import visible

if TYPE_CHECKING:
    from rich.console import Console

    from iot_platform.diagnostics.trace import Trace

EXCERPT_BYTES: Final = 400
_HIDDEN: Final = frozenset({"payload", "source_id", "topic_bytes"})


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(trace)


def trace(
    *,
    partition: Annotated[int | None, typer.Option(min=0, help="Kafka partition.")] = None,
    offset: Annotated[int | None, typer.Option(min=0, help="Kafka offset.")] = None,
    generation: Annotated[
        int | None, typer.Option(min=0, help="Which of the partition's logs the offset is of, where Kafka's log was cut or made anew.")
    ] = None,
    topic: Annotated[str | None, typer.Option(help="MQTT topic; with [b]--last[/b]: its newest message.")] = None,
    last: Annotated[bool, typer.Option("--last", help="The newest message of --topic.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Follow one message: Kafka record → row → measurements → batch → Dagster run. Exit code 1 if there is no such message.

    [b]iot trace --partition 3 --offset 1042[/b]
    [b]iot trace --topic mtic/msg/client/realtime/1968193631353446400/1968193691042586624 --last[/b]
    """
    from confluent_kafka import KafkaException
    from psycopg2 import Error

    from iot_platform.database.errors import DatabaseError
    from iot_platform.diagnostics.trace import find_last, follow
    from iot_platform.settings import get_settings
    from iot_platform.telemetry.errors import DrainError

    by_place = partition is not None and offset is not None and topic is None and not last
    if not by_place and not (topic is not None and partition is None and offset is None):
        raise CliError("say which message: --partition P --offset O, or --topic T --last")
    settings = get_settings()
    try:
        place = (partition, offset) if topic is None else find_last(settings, topic)
        if place is None or place[0] is None or place[1] is None:
            raise CliError(f"no message of topic {topic}, neither stored nor in flight; it must be the full MQTT topic")
        found = follow(settings, place[0], place[1], generation)
    except (DatabaseError, DrainError) as error:
        raise CliError(str(error)) from error
    except Error as error:
        raise CliError(f"the database could not answer: {' '.join(str(error).split())}") from error
    except KafkaException as error:
        raise CliError(f"Kafka does not answer: {error.args[0].str()} (IOT_KAFKA_BOOTSTRAP_SERVERS)") from error
    if as_json:
        terminal.echo_json(_plain(vars(found)))
    else:
        _show(found, terminal.console())
    if found.where in ("never written", "unknown"):
        raise typer.Exit(1)


def _plain(value: Any) -> Any:
    """JSON form: bytes as text where they are UTF-8, else as \\x and hex digits; times as ISO 8601."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, memoryview | bytes):
        data = bytes(value)
        try:
            return data.decode()
        except UnicodeDecodeError:
            return "\\x" + data.hex()
    return value


def _show(trace: "Trace", console: "Console") -> None:
    from rich.text import Text

    colour = {"stored": "green", "quarantined": "yellow", "in flight": "cyan", "accepted loss": "red"}.get(trace.where, "bold red")
    log: list[str | tuple[str, str]] = [("  generation ", "bold"), str(trace.generation)] if trace.generation else []
    console.print(
        Text.assemble(
            ("partition ", "bold"), str(trace.partition), ("  offset ", "bold"), str(trace.offset), *log, "  ", (trace.where, colour)
        )
    )
    if trace.record is not None:
        record = dict(trace.record)
        header = record.pop("header") or {"header": "not readable: the receive time is Kafka's"}
        _section(console, "Kafka record", record | {"size": f"{len(record['payload'])} bytes"} | header)
    if trace.row is not None:
        _section(console, "message" if trace.where == "stored" else "quarantine", trace.row)
        if trace.record is None:
            _section(console, "payload", {"payload": trace.row["payload"]})
    if trace.measurements:
        _measurements(console, trace)
    elif trace.where == "stored":
        console.print(Text("no measurements", "dim"))
    if trace.batch is not None:
        _section(console, f"batch {trace.batch['batch_id']}", trace.batch | ({"run": trace.run_url} if trace.run_url else {}))
    for note in trace.notes:
        console.print(Text(note, "italic"))


def _section(console: "Console", title: str, values: dict[str, Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title, "bold"), title_justify="left", show_header=False, box=None, padding=(0, 1, 0, 2))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in values.items():
        if name in _HIDDEN and title not in ("Kafka record", "payload"):
            continue
        if value is not None:
            table.add_row(name, Text(visible(_excerpt(value))))
    console.print(table)


def _excerpt(value: Any) -> str:
    text = str(_plain(value[:EXCERPT_BYTES] if isinstance(value, bytes | memoryview) else value))
    return text + " …" if isinstance(value, bytes | memoryview) and len(value) > EXCERPT_BYTES else text


def _measurements(console: "Console", trace: "Trace") -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text("measurements", "bold"), title_justify="left", header_style="bold")
    for name in ("device", "metric", "time", "value", "value_int", "value_text", "state"):
        table.add_column(name, overflow="fold")
    for item in trace.measurements:
        cells = (
            "" if item[name] is None else visible(str(_plain(item[name])))
            for name in ("device", "metric", "time", "value", "value_int", "value_text")
        )
        table.add_row(*map(Text, cells), Text(item["state"], "green" if item["state"] == "present" else "yellow"))
    console.print(table)
    if any("stored_by" in item for item in trace.measurements):
        _conflicts(console, trace)


def _conflicts(console: "Console", trace: "Trace") -> None:
    """What is stored where this message says something else, and the message that was first."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text("stored instead", "bold"), title_justify="left", header_style="bold")
    for name in ("device", "metric", "time", "this message says", "stored is", "by the message"):
        table.add_column(name, overflow="fold")
    for item in trace.measurements:
        if "stored_by" in item:
            first = item["stored_by"]
            place = "not found near this one" if first is None else f"partition {first['partition']} offset {first['offset']}"
            if first is not None and first["generation"] != trace.generation:
                place += f" generation {first['generation']}"
            cells = (item["device"], item["metric"], str(_plain(item["time"])), _value(item), _value(item["stored"]), place)
            table.add_row(*(Text(visible(cell)) for cell in cells))
    console.print(table)


def _value(found: dict[str, Any]) -> str:
    """A value for people; text is quoted, so that "1" is not taken for 1. As value_shown in SQL, but whole."""
    if found["value"] is None:
        return json.dumps(found["value_text"], ensure_ascii=False)
    return str(next(found[name] for name in ("value_text", "value_int", "value") if found[name] is not None))
