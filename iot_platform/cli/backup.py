"""`iot backup`: backups of the database, and what a restore of them brings back."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from iot_platform.cli import terminal
from iot_platform.cli.errors import CliError
from iot_platform.cli.times import parse_time

if TYPE_CHECKING:
    from datetime import datetime

    from iot_platform.backup.restore import Report
    from iot_platform.backup.restored_server import RestoredServer
    from iot_platform.settings import Settings

UNKNOWN: Final = 2
Json = Annotated[bool, typer.Option("--json", help="One JSON object instead of text.")]

backup_app = typer.Typer(
    name="backup", help="Backups of the database: make, list, verify, restore them (pgBackRest).", no_args_is_help=True
)


@backup_app.command("create")
def create_command(
    kind: Annotated[
        Literal["full", "diff", "incr"] | None,
        typer.Option(
            "--type", help="full; diff: since the last full one; incr: since the last one of any type. Unless given: what is due."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a backup now, and remove what is older than IOT_BACKUP_KEEP_DAYS. Readers and writers go on meanwhile.

    Exit code 0: made, and readable by pgBackRest. 2: not made.
    """
    from iot_platform.backup.create import create
    from iot_platform.cli.backup_screen import as_dict, line
    from iot_platform.settings import get_settings

    with _errors(), _progress() as note:
        note("making a backup")
        made = create(get_settings(), kind)
    terminal.echo_json(as_dict(made)) if as_json else terminal.echo(line(made))


@backup_app.command("list")
def list_command(as_json: Json = False) -> None:
    """Backups with their times (UTC), sizes and the WAL they begin with; how far the WAL goes. Exit code 1: there is none."""
    from iot_platform.backup.host import DatabaseHost
    from iot_platform.backup.listing import read_repository
    from iot_platform.cli.backup_screen import repository_dict, show_repository
    from iot_platform.settings import get_settings

    with _errors():
        repository = read_repository(DatabaseHost.of(get_settings(), read_only=True))
    if as_json:
        terminal.echo_json(repository_dict(repository))
    else:
        show_repository(repository, terminal.console(highlight=False))
    if not repository.backups:
        raise typer.Exit(1)


@backup_app.command("verify")
def verify_command(
    quick: Annotated[bool, typer.Option("--quick", help="Names only: without reading every file and comparing checksums.")] = False,
    as_json: Json = False,
) -> None:
    """Whether every state since the oldest backup can be restored: checksums of all files, holes in the WAL of each timeline (which
    pgBackRest's own check, info and verify pass over), and whether the server's archiving keeps up.

    Exit code 0: all is well. 1: something is missing, or soon will be. 2: nobody can tell.
    """
    from iot_platform.backup.host import DatabaseHost
    from iot_platform.backup.verify import verify
    from iot_platform.cli.backup_screen import show_verification, verification_dict
    from iot_platform.settings import get_settings

    with _errors(), _progress() as note:
        note("verifying the repository")
        found = verify(DatabaseHost.of(get_settings()), checksums=not quick)
    if as_json:
        terminal.echo_json(verification_dict(found))
    else:
        show_verification(found, terminal.console(highlight=False))
    if found.problems or found.unknown:
        raise typer.Exit(1 if found.problems else UNKNOWN)


@backup_app.command("restore")
def restore_command(
    to: Annotated[Path, typer.Option("--to", help="Data folder of the new server, absent or empty: the local stack's, or that of yours.")],
    at: Annotated[str, typer.Option(help="The state at this time: ISO 8601 (UTC unless it names a zone), 2h; or latest.")] = "latest",
    timeline: Annotated[
        int | None, typer.Option(min=1, help="Timeline to follow; unless given, the one that the database was last seen on.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Restore into an empty folder, wait until recovery has ended, find out what was restored and what is missing, make a full backup of it
    and stop: ready to be started. Refuses while the database runs.

    [b]iot down; mv .local/data/postgresql/17 /elsewhere; iot backup restore --to .local/data/postgresql/17; iot up[/b]

    Exit code 0: restored, and Kafka has what is missing. 1: restored, but not all that was asked for, or nobody can tell. 2: not restored.
    """
    from iot_platform.backup.restore import restore
    from iot_platform.cli.backup_screen import report_dict, show_report

    moment = _moment(at)
    with _errors(), _ended_well(), _progress() as note:
        settings, prepare = _settings_of_restore(note)
        report = restore(settings, to.absolute(), note, at=moment, timeline=timeline, prepare=prepare)
    if as_json:
        terminal.echo_json(report_dict(report))
    else:
        show_report(report, terminal.console(highlight=False))
        terminal.echo(f"{to} is ready: start the server on it (local stack: `iot up`); the drain goes on by itself")
    _exit(report)


@backup_app.command("drill")
def drill_command(
    scratch: Annotated[
        Path | None, typer.Option(help="Folder to restore into, absent or empty; removed afterwards. Unless given: IOT_BACKUP_DRILL_DIR.")
    ] = None,
    at: Annotated[str, typer.Option(help="The state at this time, as `iot backup restore` has it.")] = "latest",
    as_json: Json = False,
) -> None:
    """Restore the newest backup and the WAL behind it into a scratch folder, examine it as a real restore would be, and remove it. The copy
    does not archive, and reaches the repository with the right to read only, which is tried out first. May run beside production.

    Exit codes as of `iot backup restore`.
    """
    from iot_platform.backup.drill import drill, scratch_folder
    from iot_platform.cli.backup_screen import report_dict, show_report
    from iot_platform.settings import get_settings

    moment, settings = _moment(at), get_settings()
    with _errors(), _ended_well(), _progress() as note:
        report = drill(settings, (scratch or scratch_folder(settings)).absolute(), note, at=moment)
    if as_json:
        terminal.echo_json(report_dict(report))
    else:
        show_report(report, terminal.console(highlight=False))
    _exit(report)


@backup_app.command("config")
def config_command(
    data: Annotated[Path, typer.Option(help="The server's data folder, on its machine.")],
    port: Annotated[int, typer.Option(help="Its port.")] = 5432,
    socket: Annotated[Path, typer.Option(help="Folder of its socket.")] = Path("/var/run/postgresql"),
    work: Annotated[Path, typer.Option(help="Folder for pgBackRest's locks, which its user may write.")] = Path("/var/spool/pgbackrest"),
    for_drills: Annotated[bool, typer.Option("--drill", help="IOT_BACKUP_DRILL_CONFIG: with IOT_BACKUP_S3_READER_KEY_FILE.")] = False,
) -> None:
    """Print pgbackrest.conf for a server of your own, from IOT_BACKUP_REPOSITORY and what belongs to it, and the lines for postgresql.conf
    as a comment below. It holds the passphrase."""
    from iot_platform.backup.repository import Repository, Server, pgbackrest_conf, server_settings
    from iot_platform.settings import get_settings

    settings = get_settings()
    with _errors():
        repository = Repository.of(settings)
        if repository is None:
            raise CliError("IOT_BACKUP_REPOSITORY is not set: a folder on the database's machine, or s3://bucket/prefix", UNKNOWN)
        if for_drills:
            repository = repository.for_drills
        if repository is None:
            raise CliError("IOT_BACKUP_S3_READER_KEY_FILE is not set; drills from a folder need it mounted read-only instead", UNKNOWN)
        text = pgbackrest_conf(repository, Server(str(data), str(work), port, str(socket)))
    if for_drills:
        terminal.echo(text, nl=False)
        return
    lines = server_settings(settings.backup_config or "/etc/pgbackrest/pgbackrest.conf")
    terminal.echo(text + "\n# postgresql.conf:\n" + "".join(f"#   {name} = '{value}'\n" for name, value in lines.items()), nl=False)


def _moment(text: str) -> "datetime | None":
    return None if text.strip().lower() == "latest" else parse_time(text)


def _exit(report: "Report") -> None:
    if report.problems:
        raise typer.Exit(1)


def _settings_of_restore(note: Callable[[str], None]) -> "tuple[Settings, Callable[[RestoredServer], None] | None]":
    """For the local stack, also on a machine where nothing is left of it: what runs pgBackRest is made anew, Kafka (which knows what is
    missing) is started, and the superuser gets the password that is noted here now."""
    from threading import Event

    from iot_platform.local.errors import LocalStackError
    from iot_platform.local.plan import make_plan
    from iot_platform.local.server import start
    from iot_platform.local.supervisor import Supervisor
    from iot_platform.settings import get_settings, user_settings

    plan = make_plan(user_settings())
    server = plan.postgresql
    if server is None or server.repository is None:
        return get_settings(), None
    try:
        server.prepare_backups(note)
        if plan.kafka is not None:
            supervisor = Supervisor(plan.settings.local_dir)
            supervisor.ensure_running()
            start(plan.kafka, supervisor, note, abort=Event())
    except LocalStackError as error:
        raise CliError(str(error), UNKNOWN) from error
    password = server.passwords.of("postgres")
    return plan.settings, lambda restored: restored.set_password("postgres", password)


@contextmanager
def _errors() -> Iterator[None]:
    from iot_platform.backup.errors import BackupError

    try:
        yield
    except BackupError as error:
        raise CliError(str(error), UNKNOWN) from error


@contextmanager
def _ended_well() -> Iterator[None]:
    """SIGTERM acts as Ctrl-C: the server on the restored folder goes first."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """Shows what is being done, on standard error."""
    if not sys.stderr.isatty():
        yield lambda text: terminal.echo(text, err=True)
        return
    with terminal.console(stderr=True).status("…") as status:
        yield lambda text: status.update(f"{terminal.escape(text)} …")


def register(app: typer.Typer) -> None:
    """Add `backup` to the app."""
    app.add_typer(backup_app)
