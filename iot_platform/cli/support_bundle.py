"""`iot support-bundle`: one archive from which somebody else can tell what is wrong."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from iot_platform.cli import terminal
from iot_platform.cli.errors import CliError


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("support-bundle")(support_bundle)


def support_bundle(
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The archive, …tar.gz; named after the time unless given.")] = None,
    log_bytes: Annotated[int, typer.Option(min=1000, help="Of the end of each log, at most.")] = 2_000_000,
) -> None:
    """Write one archive for somebody who helps: versions, settings, logs, metrics, audit, status, doctor, what servers say of themselves.

    Without passwords and without what devices sent. Whatever is down: what could not be gathered stands in its README.txt. It takes two
    minutes at most.
    """
    from iot_platform.diagnostics.bundle import write_bundle
    from iot_platform.diagnostics.bundle_parts import MEANING, gather

    path = output or Path(f"iot-support-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.tar.gz")
    if not path.name.endswith(".tar.gz"):
        raise CliError("--output must end in .tar.gz", 2)
    console = terminal.console(stderr=True, highlight=False, soft_wrap=True)
    parts, scrubber = gather(log_bytes)
    with console.status("gathering") as progress:
        try:
            report = write_bundle(path, parts, MEANING, scrubber, lambda names: progress.update(f"gathering; awaited: {names}"))
        except OSError as error:
            raise CliError(f"can't write {path}: {error.strerror}") from error
    for name, why in report.missing.items():
        console.print(f"  [yellow]![/yellow] without {terminal.escape(name)}: {terminal.escape(why)}")
    size = path.stat().st_size
    terminal.echo(
        f"{path}: {len(report.files) + 1} files, {size:,} bytes. Its README.txt says what is in it; look through it before you hand it on."
    )
