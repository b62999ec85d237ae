"""`iot console`: the page that shows one tenant its data, who may log in to it, and API keys."""

import os
import sys

import typer


def register(app: typer.Typer) -> None:
    """Add the commands."""
    console = typer.Typer(name="console", help="The console: serve it; users and API keys.", no_args_is_help=True)
    console.command("serve")(serve_command)
    app.add_typer(console)


def serve_command() -> None:
    """Serve the console and its read API until stopped, on IOT_CONSOLE_HOST:IOT_CONSOLE_PORT."""
    # The API and this command line import nothing of each other: it becomes this process.
    os.execv(sys.executable, [sys.executable, "-m", "iot_platform.api"])  # noqa: S606
