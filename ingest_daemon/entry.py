"""Entry point of the `iot-ingest` script: imports the daemon only where its packages are installed."""

from ingest_daemon.extras import needs
from ingest_daemon.leaving import leave


def main() -> None:
    """Ends with the daemon's exit code; see `ingest_daemon.__main__`."""
    with needs("ingest", "iot-ingest"):
        from ingest_daemon.__main__ import main as daemon

        leave(daemon())
