"""Entry point of the `iot` script: imports the commands only where their packages are installed."""

from ingest_daemon.extras import needs


def main() -> None:
    """See `iot_platform.cli.main`."""
    with needs("platform", "iot"):
        from iot_platform.cli.main import main as command

        command()
