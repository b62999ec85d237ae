"""`iot env`, `iot exec` and `iot doctor`: the settings in force, and whether this machine and the servers fit them."""

import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from iot_platform.cli import terminal
from iot_platform.cli.errors import CliError


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


def doctor() -> None:
    """Check this machine, the ports and every configured server; each problem comes with its remedy. Exit code 1 if there is one."""
    from iot_platform.diagnostics.doctor import examine
    from iot_platform.local.plan import make_plan
    from iot_platform.settings import user_settings

    console = terminal.console(soft_wrap=True, highlight=False)
    signs = {"ok": "[green]✓[/green]", "note": "[yellow]·[/yellow]", "bad": "[red]✗[/red]"}
    bad = 0
    for finding in examine(make_plan(user_settings())):
        remedy = f"  → {finding.remedy}" if finding.remedy and finding.state != "ok" else ""
        what = terminal.escape(finding.what)
        console.print(f"{signs[finding.state]} {what:<19} {terminal.escape(finding.text)}[dim]{terminal.escape(remedy)}[/dim]")
        bad += finding.state == "bad"
    if bad:
        raise CliError(f"{bad} problem(s), marked ✗ above")


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    app.command("env")(env)
    app.command("exec", context_settings={"ignore_unknown_options": True})(execute)
    app.command("doctor")(doctor)
