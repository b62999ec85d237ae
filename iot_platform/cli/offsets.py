"""`iot offsets`: where each Kafka partition is drained to, and accepting that messages are lost."""

from typing import TYPE_CHECKING, Annotated

import typer

from iot_platform.cli.errors import CliError

if TYPE_CHECKING:
    from iot_platform.telemetry.offsets import OffsetRow, TopicIdentity, Watermarks

offsets_app = typer.Typer(
    name="offsets", help="Where each Kafka partition is drained to; what to do when Kafka lost data.", no_args_is_help=True
)


@offsets_app.command("show")
def show_command() -> None:
    """Compare the offsets in the database with Kafka's log, per partition."""
    from rich.console import Console
    from rich.table import Table

    identity, rows, marks = _look()
    table = Table("partition", "drained to", "log from", "log to", "lag", "state")
    for partition in identity.partitions:
        mark, row = marks[partition], rows.get(partition)
        drained = str(row.next_offset) if row else "-"
        lag = mark.high - (row.next_offset if row else mark.low)
        table.add_row(str(partition), drained, str(mark.low), str(mark.high), str(lag), _state(identity, row, mark))
    Console().print(f"topic {identity.topic} (id {identity.topic_id}, cluster {identity.cluster_id})", highlight=False)
    Console().print(table)


@offsets_app.command("accept")
def accept_command(
    partition: Annotated[list[int], typer.Option("--partition", help="Kafka partition; repeat the option for several.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Accept that Kafka lost messages before they were drained, or that the topic is another one, and go on with what it has.

    Each accepted loss becomes a row of the table ledger (kind accepted_loss). Partitions without a problem are left alone.
    """
    import getpass

    from iot_platform.database import connect
    from iot_platform.settings import get_settings
    from iot_platform.telemetry import offsets
    from iot_platform.telemetry.errors import DrainError

    identity, rows, marks = _look()
    if unknown := sorted(set(partition) - rows.keys()):
        raise CliError(f"partition {unknown[0]} of '{identity.topic}' was never drained: there is nothing to accept")
    trouble = [rows[number] for number in sorted(set(partition)) if _state(identity, rows[number], marks.get(number)) != "ok"]
    if not trouble:
        typer.echo("nothing to accept: these partitions can continue where they are")
        return
    for row in trouble:
        typer.echo(f"partition {row.partition}: drained to {row.next_offset}, {_state(identity, row, marks.get(row.partition))}")
    if not yes:
        typer.confirm("Give up what is missing and go on with what Kafka has?", abort=True)
    connection = connect(get_settings(), "writer", "iot-offsets")
    try:
        for row in trouble:
            if row.partition not in marks:
                raise CliError(f"the topic has no partition {row.partition} any more: there is nothing to go on with")
            typer.echo(offsets.accept(connection, identity, row, marks[row.partition], f"iot offsets accept ({getpass.getuser()})"))
    except DrainError as error:
        raise CliError(str(error)) from error
    finally:
        connection.close()


def _state(identity: "TopicIdentity", row: "OffsetRow | None", mark: "Watermarks | None") -> str:
    if row is None:
        return "not drained yet"
    if (row.cluster_id, row.topic_id) != (identity.cluster_id, identity.topic_id):
        return f"topic is another one (was {row.topic_id})"
    if mark is None:
        return "partition is gone"
    if row.next_offset < mark.low:
        return f"{mark.low - row.next_offset} messages gone"
    return "log ends before it" if row.next_offset > mark.high else "ok"


def _look() -> "tuple[TopicIdentity, dict[int, OffsetRow], dict[int, Watermarks]]":
    from iot_platform.database import DatabaseError, connect
    from iot_platform.database.migrate import require_migrated
    from iot_platform.settings import get_settings
    from iot_platform.telemetry import offsets
    from iot_platform.telemetry.errors import DrainError
    from iot_platform.telemetry.source import KafkaSource

    settings = get_settings()
    source = KafkaSource(settings)
    try:
        connection = connect(settings, "writer", "iot-offsets")
        try:
            require_migrated(connection)
            identity = offsets.describe(settings)
            return (
                identity,
                offsets.read(connection, identity.topic),
                offsets.watermarks(source.consumer, identity, identity.partitions),
            )
        finally:
            connection.close()
    except (DatabaseError, DrainError) as error:
        raise CliError(str(error)) from error
    finally:
        source.close()


def register(app: typer.Typer) -> None:
    """Add `offsets` to the app."""
    app.add_typer(offsets_app)
