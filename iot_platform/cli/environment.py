"""`iot env`, `iot exec` and `iot doctor`: the settings in force, and whether this machine and the servers fit them."""

import dataclasses
import os
import shlex
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final
from urllib.parse import urlsplit

import typer

from iot_platform.cli import findings_screen, terminal
from iot_platform.cli.errors import CliError

if TYPE_CHECKING:
    from iot_platform.diagnostics.finding import Finding

WATCH_SECONDS: Final = 30.0
"""Each look publishes probes and writes to the disk for a second: nothing to do all the time."""


def env(
    secrets: Annotated[bool, typer.Option("--secrets", help="Passwords too: keep the output off shared screens and logs.")] = False,
) -> None:
    """Print the settings in force as shell exports, for: [b]eval "$(iot env --secrets)"[/b] and then dagster, psql, your own scripts."""
    from pydantic import SecretStr

    from iot_platform.orchestration.environment import dagster_environment
    from iot_platform.settings import Settings, exports, get_settings

    settings = get_settings()
    hidden = {f"IOT_{name.upper()}" for name in Settings.model_fields if isinstance(getattr(settings, name), SecretStr)}
    values = exports(settings) | dagster_environment(settings)
    del values["PYTHONWARNINGS"]
    for name, value in values.items():
        if secrets or not _is_secret(name, value, hidden | {"IOT_DAGSTER_STORAGE_URL"}):
            terminal.echo(f"export {name}={shlex.quote(value)}")
        else:
            terminal.echo(f"# {name} holds a password: iot env --secrets")


def _is_secret(name: str, value: str, hidden: set[str]) -> bool:
    if name not in hidden:
        return False
    return "://" not in value or urlsplit(value).password is not None


def execute(command: Annotated[list[str], typer.Argument(metavar="COMMAND...", help="A program and its arguments.")]) -> None:
    """Become a program of Dagster's, in the environment it needs: [b]iot exec dagster-daemon run -w workspace.yaml[/b]. Where no shell is
    that could [b]eval[/b] the above, or no variable may hold a password: it may stand in IOT_SECRETS_DIR."""
    from iot_platform.orchestration.environment import dagster_environment
    from iot_platform.settings import get_settings

    environment = dagster_environment(get_settings()) | os.environ
    # Dagster's programs are beside this one, also where that folder is not in PATH.
    program = shutil.which(command[0], path=f"{Path(sys.executable).parent}{os.pathsep}{environment.get('PATH', os.defpath)}")
    try:
        os.execve(program or command[0], command, environment)  # noqa: S606 - no shell is the point
    except OSError as error:
        raise CliError(f"{command[0]}: {error.strerror}; it is neither in PATH nor beside {sys.executable}") from error


def doctor(
    everything: Annotated[bool, typer.Option("--all", "-a", help="What is well, too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of the page.")] = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Repeat until Ctrl-C.")] = False,
) -> None:
    """Check this machine, the servers and the settings that the promise rests on: one page within a minute, what to fix first and how.

    Exit code: 0 nothing to fix, 1 in danger at the next fault, 3 something does not work and messages are late, 4 messages are missing or
    wrong.
    """
    from iot_platform.diagnostics.doctor import examine
    from iot_platform.diagnostics.finding import EXIT_CODES, worst
    from iot_platform.local.plan import make_plan
    from iot_platform.settings import user_settings

    plan = make_plan(user_settings())
    found: list[Finding] = []
    try:
        while True:
            with terminal.console(stderr=True).status("looking") as progress:
                found = examine(plan, lambda awaited: progress.update(f"looking; awaited: {awaited}"))
            _show(found, everything=everything, as_json=as_json, clear=watch)
            sys.stdout.flush()
            if not watch:
                break
            time.sleep(WATCH_SECONDS)
    except KeyboardInterrupt:
        if not found:
            raise
    raise typer.Exit(EXIT_CODES[worst(found)])


def _show(found: "list[Finding]", *, everything: bool, as_json: bool, clear: bool) -> None:
    from iot_platform.diagnostics.finding import EXIT_CODES, verdict, worst

    if as_json:
        state = worst(found)
        document = {"verdict": verdict(found), "state": state, "exit_code": EXIT_CODES[state]}
        terminal.echo_json(document | {"findings": [dataclasses.asdict(finding) for finding in found]})
        return
    console = terminal.console(soft_wrap=True, highlight=False)
    if clear and console.is_terminal:
        console.clear()
    console.print(findings_screen.page(found, everything=everything))


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    app.command("env")(env)
    app.command("exec", context_settings={"ignore_unknown_options": True})(execute)
    app.command("doctor")(doctor)
