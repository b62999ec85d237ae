"""`iot audit`: whether every received message is where it belongs, and if not, which ones are not."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Final

import typer

from iot_platform.cli import terminal
from iot_platform.cli.errors import CliError
from iot_platform.cli.times import parse_time

if TYPE_CHECKING:
    from iot_platform.audit import AuditResult

UNKNOWN: Final = 2


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(audit)


def audit(
    *,
    since: Annotated[str, typer.Option(help="What was committed since: 24h, 3d, ISO 8601 (UTC), or all.")] = "24h",
    tenant: Annotated[
        str | None, typer.Option(help="Sums of this tenant only, by project; offsets and sequences belong to no tenant.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of tables.")] = False,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait at most for the drain to come to the end of Kafka's log.")] = 60.0,
) -> None:
    """Prove that no message is lost or stored twice, and name every difference by its place.

    Two independent proofs: every Kafka offset is in message or quarantine exactly once, and the ledger's ranges join; every sequence that
    an ingest daemon wrote to Kafka is found, without a hole in any MQTT connection. The sums of accounting_1h are compared with the rows,
    and the daemons' own counters are added up. Nothing is changed but the stored reports. `--since all` counts measurements, too.

    [b]iot audit --since 3d --tenant 1968193631353446400[/b]

    Exit code 0: nothing differs. 1: something does. 2: a server does not answer, so nobody can tell.
    """
    start = _since(since)
    with _progress() as note:
        result = _run(start, tenant, wait, note)
    if as_json:
        terminal.echo_json(result.as_json())
    else:
        from iot_platform.cli.audit_screen import show

        show(result, tenant, terminal.console(highlight=False))
    if not result.ok:
        raise typer.Exit(1)
    if result.doubts:
        raise typer.Exit(UNKNOWN)


def _since(text: str) -> datetime | None:
    return None if text.strip().lower() == "all" else parse_time(text)


def _run(since: datetime | None, tenant: str | None, wait: float, note: Callable[[str], None]) -> "AuditResult":
    from iot_platform.audit import run_audit
    from iot_platform.database import DatabaseError
    from iot_platform.settings import get_settings

    try:
        return run_audit(get_settings(), since=since, tenant=tenant, wait_seconds=wait, note=note)
    except DatabaseError as error:
        raise CliError(str(error), UNKNOWN) from error


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """Shows what is being done, where somebody looks."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    with terminal.console(stderr=True).status("auditing …") as status:
        yield lambda text: status.update(f"{text} …")
