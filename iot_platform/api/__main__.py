"""`python -m iot_platform.api`: serves the console until told to stop; `iot console serve` becomes this process."""

import sys

from ingest_daemon.errors import SettingsError
from ingest_daemon.extras import needs
from ingest_daemon.leaving import leave


def main() -> None:
    """Serve."""
    with needs("console", "iot console serve"):
        from iot_platform.api.server import serve
        from iot_platform.settings import get_settings

        try:
            serve(get_settings())
            leave(0)
        except SettingsError as error:
            sys.stderr.write(f"error: {error}\n")
            sys.exit(2)


if __name__ == "__main__":
    main()
