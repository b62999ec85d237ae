"""`iot replay`: stored messages through the decoder again, after a fix of rules or settings."""

import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer import BadParameter

from iot_platform.cli import terminal
from iot_platform.cli.times import parse_time
from iot_platform.signals import stop_on_signals

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from iot_platform.telemetry.replay.replay import Selection, Tally

STOPPED = 130
UNREACHABLE = 2


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(replay)


def replay(
    *,
    since: Annotated[str | None, typer.Option("--from", help="Received at or after: ISO 8601 (UTC), or 2h, 3d ago.")] = None,
    until: Annotated[str | None, typer.Option("--to", help="Received before; no bound unless given.")] = None,
    partition: Annotated[int | None, typer.Option(min=0, help="Kafka partition, with [b]--offsets[/b].")] = None,
    offsets: Annotated[str | None, typer.Option(help="Kafka offsets A:B, without B itself.")] = None,
    generation: Annotated[
        int | None,
        typer.Option(min=0, help="With --offsets: which of the partition's logs they are of, where Kafka's log was cut; all unless given."),
    ] = None,
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's, as stored or as the rules of today name it.")] = None,
    project: Annotated[str | None, typer.Option(help="Only this project's.")] = None,
    quarantined: Annotated[bool, typer.Option("--quarantined", help="Only quarantined messages.")] = False,
    reason: Annotated[list[str] | None, typer.Option(help="Only messages quarantined for this reason; may be repeated.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what would happen, and change nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of tables.")] = False,
) -> None:
    """Send stored messages through the decoder again, under the rules and settings of today.

    Quarantined messages that decode now become messages with measurements. Stored messages get the measurements they lack; nothing else of
    them changes. Offsets that neither table has (`iot audit` names them) come back from Kafka, if they are selected by --offsets and Kafka
    still holds them. Replaying twice adds nothing; it is safe beside live draining, may be killed, and is simply repeated.

    [b]iot replay --reason topic_mismatch --dry-run[/b]
    [b]iot replay --from 2h --tenant 1968193631353446400[/b]
    [b]iot replay --partition 3 --offsets 1042:1043[/b]

    Exit code 0: all that could be done is done, quarantined messages may remain. 1: it failed, or selected offsets cannot be restored.
    2: wrong usage, or a server does not answer. 130: stopped by Ctrl-C after the batch at work; repeat it.
    """
    kept = {"tenant": tenant, "project": project, "quarantined": quarantined or bool(reason), "reasons": _reasons(reason or [])}
    if (partition is None) != (offsets is None):
        raise BadParameter("--partition and --offsets belong together: --partition 3 --offsets 1000:2000")
    if partition is not None and (since or until):
        raise BadParameter("select by --from and --to, or by --partition and --offsets, not by both")
    if partition is None and not (since or until or kept["quarantined"]):
        raise BadParameter("say what to replay: --from and --to, --partition and --offsets, --quarantined or --reason")
    if generation is not None and partition is None:
        raise BadParameter("--generation belongs to --partition and --offsets")
    kept_too = kept | {"generation": generation}
    selection = _by_time(since, until, kept) if partition is None else _by_offset(partition, offsets or "", kept_too)
    tally, seconds, run_id = _run(selection, dry_run=dry_run)
    if as_json:
        terminal.echo_json({"run_id": run_id, "dry_run": dry_run, "seconds": round(seconds, 3), **tally.to_json()})
    else:
        _show(tally, seconds, run_id, dry_run, terminal.console(highlight=False, soft_wrap=True))
    if tally.ended == "stopped":
        raise typer.Exit(STOPPED)
    if tally.lost:
        raise typer.Exit(1)


def _reasons(reasons: list[str]) -> tuple[str, ...]:
    from iot_platform.telemetry.decode import Reason

    if unknown := sorted(set(reasons) - set(Reason)):
        raise BadParameter(f"no message is quarantined for {unknown[0]!r}; the reasons are: {', '.join(Reason)}", param_hint="--reason")
    return tuple(reasons)


def _by_time(since: str | None, until: str | None, kept: dict[str, Any]) -> "Selection":
    from datetime import UTC, datetime, timedelta

    from iot_platform.telemetry.replay.replay import Selection

    epoch, microsecond = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)
    start = (parse_time(since) - epoch) // microsecond if since else Selection.start
    end = (parse_time(until) - epoch) // microsecond if until else Selection.end
    if start >= end:
        raise BadParameter("--from must be before --to")
    return Selection(start=start, end=end, **kept)


def _by_offset(partition: int, text: str, kept: dict[str, Any]) -> "Selection":
    from iot_platform.telemetry.replay.replay import Selection

    first, colon, last = text.partition(":")
    if not colon or not first.isdecimal() or not last.isdecimal() or int(first) >= int(last) or int(last) >= 1 << 63:
        raise BadParameter(f"{text!r} is no range: write A:B with A < B; one offset alone is 1042:1043", param_hint="--offsets")
    return Selection(partition=partition, first=int(first), last=int(last), **kept)


def _run(selection: "Selection", *, dry_run: bool) -> tuple["Tally", float, str]:
    """Replay with a progress bar on standard error."""
    import psycopg2
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from iot_platform.database.errors import DatabaseError
    from iot_platform.kafka.errors import KafkaUnavailableError
    from iot_platform.settings import get_settings
    from iot_platform.telemetry.errors import DrainError, ReplayError
    from iot_platform.telemetry.replay.replay import Replay

    console = terminal.console(stderr=True, highlight=False)
    stop, begun = threading.Event(), time.monotonic()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("looking" if dry_run else "replaying", total=None, rate="")

        def show(tally: "Tally", total: int) -> None:
            rate = f"{tally.read / max(time.monotonic() - begun, 0.001):,.0f}/s"
            bar.update(task, total=max(total, tally.read), completed=tally.read, rate=rate)

        def warn(text: str) -> None:
            console.print(f"trying again: {text}", markup=False)

        replay: Replay = Replay(get_settings(), selection, dry_run=dry_run, on_progress=show, on_retry=warn, stop=stop)
        try:
            with stop_on_signals(stop, then=lambda: console.print("stopping after this batch …")):
                replay.run()
        except ReplayError as error:
            _fail(console, str(error), 1)
        except (DatabaseError, KafkaUnavailableError, DrainError) as error:
            _fail(console, str(error), UNREACHABLE)
        except psycopg2.Error as error:
            _fail(console, f"the database refuses: {' '.join(str(error).split())}", 1)
    return replay.tally, time.monotonic() - begun, replay.run_id


def _fail(console: "Console", text: str, code: int) -> NoReturn:
    console.print(f"[red]error:[/red] {terminal.escape(text)}", soft_wrap=True)
    raise typer.Exit(code)


def _show(tally: "Tally", seconds: float, run_id: str, dry_run: bool, console: "Console") -> None:
    from rich.text import Text

    done = "would be " if dry_run else ""
    lines = (
        (tally.read, "looked at"),
        (
            tally.moved,
            f"{done}moved from quarantine to message" + (f", {tally.moved_copies} redelivered copies" if tally.moved_copies else ""),
        ),
        (tally.still_bad, f"stay in quarantine ({tally.updated} with a reason {done}brought up to date)"),
        (tally.complete, "messages lack nothing"),
        (tally.completed, f"messages {done}completed"),
        (tally.refused, "messages would be quarantined by the rules of today: left as they are"),
        (tally.restored, f"{done}restored from Kafka, {tally.restored_bad} of them into quarantine"),
        (tally.lost, "cannot be restored"),
        (tally.elsewhere, "moved or restored by another replay before"),
        (tally.measurements, f"measurements {done}added"),
        (tally.measurement_duplicates, "measurements were there already"),
        (tally.measurement_conflicts, "measurements differ from a value that is there (see iot project options: conflicts)"),
    )
    what = f"{run_id}, dry run: nothing was changed" if dry_run else run_id
    console.print(Text(f"{what} ({seconds:.1f} s{', stopped early' if tally.ended == 'stopped' else ''})", "bold"))
    for count, text in lines:
        if count or text == "looked at":
            console.print(f"{count:>12,}  {text}")
    for table in _tables(tally):
        console.print(table)
    for note in tally.notes:
        console.print(Text(note, "italic"))


def _tables(tally: "Tally") -> "Iterator[Table]":
    from rich.table import Table
    from rich.text import Text

    def table(title: str, *names: str) -> Table:
        return Table(*names, title=Text(title, "bold"), title_justify="left", box=None, padding=(0, 1, 0, 2))

    if tally.reasons:
        made = table("quarantined messages", "reason before", "now", "messages")
        for (before, after), count in tally.reasons.most_common(20):
            made.add_row(before, after, f"{count:,}")
        yield made
    if tally.projects:
        made = table("messages moved, completed or restored", "tenant", "project", "messages")
        for (tenant, project), count in tally.projects.most_common(20):
            made.add_row(Text(tenant), Text(project), f"{count:,}")
        yield made
    if tally.samples:
        made = table("some that stay as they are", "partition", "offset", "reason", "detail")
        for sample in tally.samples:
            made.add_row(str(sample.partition), str(sample.offset), sample.reason, Text(sample.detail))
        yield made
