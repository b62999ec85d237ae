"""`iot console`: the page that shows a tenant its data: serving it, its users and its API keys."""

import os
import sys

import typer

from iot_platform.cli import console_keys, console_users


def register(app: typer.Typer) -> None:
    """Add the commands."""
    console = typer.Typer(name="console", help="The console and its read API: serve it; users and API keys.", no_args_is_help=True)
    console.command("serve")(serve_command)
    console_users.register(console)
    console_keys.register(console)
    app.add_typer(console)


def serve_command() -> None:
    """Serve the console and its read API until stopped, on IOT_CONSOLE_HOST:IOT_CONSOLE_PORT."""
    # The API and this command line import nothing of each other: it becomes this process.
    os.execv(sys.executable, [sys.executable, "-m", "iot_platform.api"])  # noqa: S606
