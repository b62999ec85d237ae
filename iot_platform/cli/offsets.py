"""`iot offsets`: where each Kafka partition is drained to, and accepting that messages are lost."""

from typing import TYPE_CHECKING, Annotated

import typer

from iot_platform.cli import terminal
from iot_platform.cli.errors import CliError

if TYPE_CHECKING:
    from iot_platform.telemetry.drain.partition_state import DrainState

offsets_app = typer.Typer(
    name="offsets", help="Where each Kafka partition is drained to; what to do when Kafka lost data.", no_args_is_help=True
)


@offsets_app.command("show")
def show_command() -> None:
    """Compare the offsets in the database with Kafka's log, per partition. Exit code 1 if a partition cannot simply go on.

    Where Kafka has as many records as it should, or more, the last drained one is compared byte for byte: a log that was cut and has grown
    again is found. Such a log needs nobody: the next drain run goes on where it was cut.
    """
    from rich.table import Table
    from rich.text import Text

    drain = _look(closely=True)
    identity, rows, states = drain.identity, drain.rows, drain.partitions
    table = Table("partition", "drained to", "log from", "log to", "lag", "epoch", "generation", "state")
    for partition, state in states.items():
        row, ends = rows.get(partition), state.ends
        edges = (str(ends.low), str(ends.high)) if ends else ("-", "-")
        epoch = "-" if row is None or row.leader_epoch is None else str(row.leader_epoch)
        said = state.word or ("ok" if row else "not drained yet")
        drained = (str(row.next_offset), str(row.log_generation)) if row else ("-", "-")
        table.add_row(str(partition), drained[0], *edges, str(state.lag), epoch, drained[1], Text(said, "red" if state.problem else ""))
    console = terminal.console()
    console.print(f"topic {identity.topic} (id {identity.topic_id}, cluster {identity.cluster_id})", highlight=False)
    console.print(table)
    for state in drain.wrong:
        console.print(Text(f"partition {state.partition}: {state.word}: {state.text}", "red"), soft_wrap=True)
    for text in _cuts(identity.topic):
        console.print(Text(text, "yellow"))
    if drain.wrong:
        raise typer.Exit(1)


@offsets_app.command("accept")
def accept_command(
    partition: Annotated[list[int], typer.Option("--partition", help="Kafka partition; repeat the option for several.")],
    from_beginning: Annotated[
        bool,
        typer.Option(
            "--from-beginning",
            help="Take all that Kafka holds of these partitions as new, whatever was drained before: for a log of which nothing is known"
            " any more. Messages that are stored already are recognised where their rows still exist.",
        ),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Accept that Kafka lost messages before they were drained, or that the topic is another one, and go on with what it has.

    Each accepted loss becomes a row of the table ledger (kind accepted_loss). Partitions without a problem are left alone.
    """
    import getpass

    from iot_platform.database import connect
    from iot_platform.settings import get_settings
    from iot_platform.telemetry.drain import offsets
    from iot_platform.telemetry.errors import DrainError

    drain = _look(closely=False)
    identity, rows, states = drain.identity, drain.rows, drain.partitions
    chosen = sorted(set(partition))
    if unknown := sorted(set(chosen) - rows.keys()):
        raise CliError(f"partition {unknown[0]} of '{identity.topic}' was never drained: there is nothing to accept")
    trouble = [number for number in chosen if states[number].needs_person or from_beginning]
    if not trouble:
        for number in chosen:
            if states[number].problem:
                terminal.echo(f"partition {number}: {states[number].text}")
        terminal.echo("nothing to accept: these partitions can continue where they are")
        return
    for number in trouble:
        terminal.echo(f"partition {number}: drained to {rows[number].next_offset}. {states[number].text or 'No problem is known of it.'}")
    if not yes:
        typer.confirm("Give up what is missing and go on with what Kafka has?", abort=True)
    connection = connect(get_settings(), "writer", "iot-offsets")
    try:
        for number in trouble:
            if (ends := states[number].ends) is None:
                raise CliError(f"the topic has no partition {number} any more: there is nothing to go on with")
            who = f"iot offsets accept ({getpass.getuser()})"
            terminal.echo(offsets.accept(connection, identity, rows[number], ends, who, from_beginning=from_beginning))
    except DrainError as error:
        raise CliError(str(error)) from error
    finally:
        connection.close()


def _look(*, closely: bool) -> "DrainState":
    from contextlib import closing

    from iot_platform.database import DatabaseError, connect
    from iot_platform.database.migrate import require_migrated
    from iot_platform.kafka.errors import KafkaUnavailableError
    from iot_platform.settings import get_settings
    from iot_platform.telemetry.drain.partition_examination import examine
    from iot_platform.telemetry.errors import DrainError

    settings = get_settings()
    try:
        with closing(connect(settings, "writer", "iot-offsets")) as connection:
            require_migrated(connection)
            return examine(settings, connection, closely=closely)
    except (DatabaseError, KafkaUnavailableError, DrainError) as error:
        raise CliError(str(error)) from error


def _cuts(topic: str) -> list[str]:
    from contextlib import closing

    from iot_platform.database import connect
    from iot_platform.settings import get_settings
    from iot_platform.telemetry.drain.known_cuts import cuts_since

    with closing(connect(get_settings(), "reader", "iot-offsets")) as connection:
        return [cut.line for cut in cuts_since(connection, topic)]


def register(app: typer.Typer) -> None:
    """Add `offsets` to the app."""
    app.add_typer(offsets_app)
